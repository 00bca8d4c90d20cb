/**
 * The durable heart of the server: every object as encoded JSON in one SQLite table, one monotonic revision for all
 * writes, and a bounded history of changes that watches and paged lists read from.
 *
 * The write-ahead log is written before a write is answered but not flushed to the disk (`synchronous=NORMAL`): an
 * answered write survives `kill -9` of the process and every crash of the program; a power cut may lose the last ones.
 *
 * All operations are synchronous, so whatever runs inside `transaction` is atomic and sees no other writer. Transactions
 * that come in the same turn of the event loop are committed together at its end, which makes many small writes cheap;
 * `durable` waits for that. SQLite's own failures (disk full, damaged file) are defects.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { chmodSync, closeSync, openSync } from "node:fs"
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite"

/** The database can't be opened. Another server may be using it, or the file is damaged. */
export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  path: Schema.String,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `can't open ${this.path}: check that no other server uses this directory and that the disk has room`
  }
}

/** Where an object is stored. `namespace` is empty for cluster-scoped kinds. */
export interface Key {
  readonly resource: string
  readonly namespace: string
  readonly name: string
}

/** A stored object: its place, the revision of its last write, and its JSON. */
export interface Stored extends Key {
  readonly revision: number
  readonly body: string
  /** The object waits for its removal. */
  readonly deleting: boolean
}

/** One change: what an object was (`undefined`: not there) and became. For a deletion `body` is its last state. */
export interface Change extends Key {
  readonly revision: number
  readonly type: "ADDED" | "MODIFIED" | "DELETED"
  readonly body: string
  readonly previous: string | undefined
}

/** A part of a listing: all of a resource, or of one namespace, after a place, up to a number. */
export interface Range {
  readonly resource: string
  readonly namespace?: string | undefined
  readonly after?: { readonly namespace: string; readonly name: string } | undefined
  readonly limit: number
}

/** A limit that no listing reaches. */
export const unlimited = Number.MAX_SAFE_INTEGER

/**
 * How many changes are kept for watches that resume and lists that continue. Twenty thousand cover several minutes of a
 * busy machine; etcd's usual window is five minutes.
 */
const historyLimit = 20_000

/** The history is trimmed once per this many writes, so that trimming costs a write almost nothing. */
const trimInterval = 1_000

/** Readable by the owner only. */
const databaseMode = 0o600

/** Changes that are committed together at most; more would make a turn of the event loop long. */
const batchLimit = 1_000

/** Pages of the log before it is folded into the database, which flushes the disk; 16,384 pages are 64 MiB. */
const checkpointPages = 16_384

/** Pages of the database that may stay in memory, in KiB. */
const pageCacheKib = 16_384

const schema = `
  CREATE TABLE IF NOT EXISTS objects (
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    uid TEXT NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL, deleting INTEGER NOT NULL,
    PRIMARY KEY (resource, namespace, name)
  ) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS objects_by_uid ON objects (uid);
  CREATE INDEX IF NOT EXISTS objects_deleting ON objects (deleting) WHERE deleting = 1;
  CREATE TABLE IF NOT EXISTS history (
    revision INTEGER PRIMARY KEY, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    type TEXT NOT NULL, body TEXT NOT NULL, previous TEXT
  );
  CREATE INDEX IF NOT EXISTS history_by_resource ON history (resource, revision);
  CREATE TABLE IF NOT EXISTS owners (
    owner TEXT NOT NULL, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    PRIMARY KEY (owner, resource, namespace, name)
  ) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS owners_by_object ON owners (resource, namespace, name);
  CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
`

/** The write of one object. `owners` are the uids in its ownerReferences. */
export interface Write extends Key {
  readonly uid: string
  readonly owners: ReadonlyArray<string>
  /** The object waits for its removal. */
  readonly deleting: boolean
  /** Makes the body for the revision that this write gets. */
  readonly body: (revision: number) => string
}

/** The store's operations. */
export interface StoreShape {
  /** The revision of the last write. */
  readonly revision: () => number
  /** The oldest revision that a watch may start after. */
  readonly compacted: () => number
  readonly get: (key: Key) => Stored | undefined
  readonly list: (range: Range) => ReadonlyArray<Stored>
  /** The listing as it was at a revision that is not compacted. */
  readonly listAt: (range: Range, revision: number) => ReadonlyArray<Stored>
  readonly count: (range: Omit<Range, "limit">) => number
  readonly byUid: (uid: string) => Stored | undefined
  readonly dependents: (owner: string) => ReadonlyArray<Key>
  readonly write: (write: Write) => Stored
  readonly remove: (key: Key, lastBody: (revision: number) => string) => Stored | undefined
  /** Changes of a resource after a revision, oldest first. */
  readonly changes: (resource: string, after: number, limit: number) => ReadonlyArray<Change>
  /** Runs `body` atomically; a failure or an exception undoes it. It is committed soon after: see `durable`. */
  readonly transaction: <A, E>(body: () => Result.Result<A, E>) => Result.Result<A, E>
  /** Runs `body` and undoes whatever it wrote: a dry run. */
  readonly rehearse: <A, E>(body: () => Result.Result<A, E>) => Result.Result<A, E>
  /** Waits until everything that was written so far is committed. Nothing may be told to a client before. */
  readonly durable: Effect.Effect<void>
  /** Commits what was written so far. */
  readonly settle: () => void
  /** Objects that wait for their removal. */
  readonly deleting: () => ReadonlyArray<Stored>
  /** Objects, not yet being deleted, that name an owner which no longer exists. */
  readonly ownerless: (limit: number) => ReadonlyArray<Stored>
  /** Calls `listener` after each transaction that changed something; returns how to stop. */
  readonly subscribe: (listener: Listener) => () => void
}

/** What a transaction changed. `collectable`: something was deleted or has an owner, so collectors should look. */
export interface Changes {
  readonly resources: ReadonlySet<string>
  readonly collectable: boolean
}

/** Hears of changes once they are committed. It must return at once. */
export type Listener = (changes: Changes) => void

/** The store of one data directory. */
export class Store extends Context.Service<Store, StoreShape>()("@fast-sandbox/local/apiserver/Store") {
  /** Opens (or creates) the database at `path`; closed with the scope. */
  static readonly layer = (path: string): Layer.Layer<Store, StoreError> =>
    Layer.effect(
      Store,
      Effect.acquireRelease(
        Effect.try({
          try: () => {
            // Secrets are stored here; SQLite gives the log the same mode.
            closeSync(openSync(path, "a", databaseMode))
            chmodSync(path, databaseMode)
            const database = new DatabaseSync(path)
            database.exec("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;")
            database.exec(
              `PRAGMA cache_size=-${pageCacheKib}; PRAGMA temp_store=MEMORY; PRAGMA wal_autocheckpoint=${checkpointPages};`
            )
            database.exec(schema)
            return database
          },
          catch: (cause) => new StoreError({ path, cause })
        }).pipe(Effect.map((database) => ({ database, store: make(database) }))),
        ({ database, store }) =>
          Effect.sync(() => {
            store.settle()
            database.close()
          })
      ).pipe(Effect.map(({ store }) => store))
    )
}

const text = (value: unknown): string => typeof value === "string" ? value : ""
const number = (value: unknown): number => typeof value === "number" ? value : 0

type Row = Record<string, unknown>

const stored = (row: Row): Stored => ({
  resource: text(row["resource"]),
  namespace: text(row["namespace"]),
  name: text(row["name"]),
  revision: number(row["revision"]),
  body: text(row["body"]),
  deleting: row["deleting"] === 1
})

const changeType = (value: unknown): Change["type"] => value === "ADDED" || value === "DELETED" ? value : "MODIFIED"

const bounds = (
  range: Omit<Range, "limit">
): { readonly where: string; readonly values: ReadonlyArray<SQLInputValue> } => ({
  where: "resource = ?" +
    (range.namespace === undefined ? "" : " AND namespace = ?") +
    (range.after === undefined ? "" : " AND (namespace, name) > (?, ?)"),
  values: [
    range.resource,
    ...(range.namespace === undefined ? [] : [range.namespace]),
    ...(range.after === undefined ? [] : [range.after.namespace, range.after.name])
  ]
})

const key = (row: Row): Key => ({
  resource: text(row["resource"]),
  namespace: text(row["namespace"]),
  name: text(row["name"])
})

const change = (row: Row): Change => ({
  ...stored(row),
  type: changeType(row["type"]),
  previous: typeof row["previous"] === "string" ? row["previous"] : undefined
})

const make = (database: DatabaseSync): StoreShape => {
  const prepared = new Map<string, StatementSync>()
  const statement = (sql: string): StatementSync => {
    const known = prepared.get(sql)
    if (known !== undefined) return known
    const fresh = database.prepare(sql)
    prepared.set(sql, fresh)
    return fresh
  }
  const one = (sql: string, ...values: ReadonlyArray<SQLInputValue>): Row | undefined => statement(sql).get(...values)
  const all = (sql: string, ...values: ReadonlyArray<SQLInputValue>): ReadonlyArray<Row> =>
    statement(sql).all(...values)
  const run = (sql: string, ...values: ReadonlyArray<SQLInputValue>) => statement(sql).run(...values)

  const meta = (key: string): number => number(one("SELECT value FROM meta WHERE key = ?", key)?.["value"])

  let compacted = meta("compacted")
  // Revisions start at 1, so that no object ever has version 0, which means "any" to clients.
  let revision = Math.max(
    1,
    meta("compacted"),
    number(one("SELECT max(revision) AS value FROM history")?.["value"]),
    number(one("SELECT max(revision) AS value FROM objects")?.["value"])
  )
  let changed = new Set<string>()
  let collectable = false
  const listeners = new Set<Listener>()

  const trim = () => {
    const oldest = revision - historyLimit
    if (oldest <= compacted) return
    run("DELETE FROM history WHERE revision <= ?", oldest)
    run("INSERT INTO meta VALUES ('compacted', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", oldest)
    compacted = oldest
  }

  const record = (key: Key, type: Change["type"], body: string, previous: string | null) => {
    run(
      "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?)",
      revision,
      key.resource,
      key.namespace,
      key.name,
      type,
      body,
      previous
    )
    changed.add(key.resource)
  }

  const get = (key: Key): Stored | undefined => {
    const row = one(
      "SELECT * FROM objects WHERE resource = ? AND namespace = ? AND name = ?",
      key.resource,
      key.namespace,
      key.name
    )
    return row === undefined ? undefined : stored(row)
  }

  const write: StoreShape["write"] = (request) => {
    const before = get(request)
    revision += 1
    const body = request.body(revision)
    run(
      "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (resource, namespace, name) DO UPDATE SET " +
        "uid = excluded.uid, revision = excluded.revision, body = excluded.body, deleting = excluded.deleting",
      request.resource,
      request.namespace,
      request.name,
      request.uid,
      revision,
      body,
      request.deleting ? 1 : 0
    )
    if (request.deleting || request.owners.length > 0) collectable = true
    if (before !== undefined || request.owners.length > 0) {
      run(
        "DELETE FROM owners WHERE resource = ? AND namespace = ? AND name = ?",
        request.resource,
        request.namespace,
        request.name
      )
      for (const owner of request.owners) {
        run(
          "INSERT OR IGNORE INTO owners VALUES (?, ?, ?, ?)",
          owner,
          request.resource,
          request.namespace,
          request.name
        )
      }
    }
    record(request, before === undefined ? "ADDED" : "MODIFIED", body, before?.body ?? null)
    return {
      resource: request.resource,
      namespace: request.namespace,
      name: request.name,
      revision,
      body,
      deleting: request.deleting
    }
  }

  const remove: StoreShape["remove"] = (key, lastBody) => {
    const before = get(key)
    if (before === undefined) return undefined
    revision += 1
    const body = lastBody(revision)
    collectable = true
    const place = [key.resource, key.namespace, key.name] as const
    run("DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?", ...place)
    run("DELETE FROM owners WHERE resource = ? AND namespace = ? AND name = ?", ...place)
    record(key, "DELETED", body, before.body)
    return { resource: key.resource, namespace: key.namespace, name: key.name, revision, body, deleting: true }
  }

  const list: StoreShape["list"] = (range) => {
    const { values, where } = bounds(range)
    return all(
      `SELECT * FROM objects WHERE ${where} ORDER BY namespace, name LIMIT ?`,
      ...values,
      range.limit
    ).map(stored)
  }

  const listAt: StoreShape["listAt"] = (range, at) => {
    const { values, where } = bounds(range)
    // What has not been written since, and the first recorded past of what has.
    return all(
      `SELECT resource, namespace, name, revision, body, deleting FROM objects WHERE ${where} AND revision <= ? UNION ALL ` +
        `SELECT resource, namespace, name, 0 AS revision, previous AS body, 0 AS deleting FROM history WHERE revision IN (` +
        `SELECT min(revision) FROM history WHERE revision > ? AND ${where} GROUP BY namespace, name` +
        `) AND previous IS NOT NULL ORDER BY namespace, name LIMIT ?`,
      ...values,
      at,
      at,
      ...values,
      range.limit
    ).map(stored)
  }

  const count: StoreShape["count"] = (range) => {
    const { values, where } = bounds(range)
    return number(one(`SELECT count(*) AS value FROM objects WHERE ${where}`, ...values)?.["value"])
  }

  let batchOpen = false
  let batchStart = revision
  let waiting: Array<(outcome: Exit.Exit<void>) => void> = []

  const commit = (): Exit.Exit<void> => {
    const outcome = Result.try(() => {
      if (Math.floor(revision / trimInterval) !== Math.floor(batchStart / trimInterval)) trim()
      run("COMMIT")
    })
    if (Result.isSuccess(outcome)) return Exit.void
    if (database.isTransaction) run("ROLLBACK")
    revision = batchStart
    compacted = meta("compacted")
    return Exit.die(outcome.failure)
  }

  const settle = (): void => {
    if (!batchOpen) return
    batchOpen = false
    const outcome = commit()
    const changes: Changes = { resources: changed, collectable }
    const answered = waiting
    changed = new Set()
    collectable = false
    waiting = []
    if (Exit.isSuccess(outcome) && changes.resources.size > 0) { for (const listener of listeners) listener(changes) }
    for (const resume of answered) resume(outcome)
  }

  const attempt = <A, E>(body: () => Result.Result<A, E>, outcome: "keep" | "undo"): Result.Result<A, E> => {
    if (!batchOpen) {
      run("BEGIN IMMEDIATE")
      batchOpen = true
      batchStart = revision
      setImmediate(settle)
    }
    const before = { revision, changed, collectable }
    changed = new Set(changed)
    run("SAVEPOINT attempt")
    let kept = false
    try {
      const result = body()
      kept = outcome === "keep" && Result.isSuccess(result)
      return result
    } finally {
      if (!kept) {
        run("ROLLBACK TO attempt")
        revision = before.revision
        changed = before.changed
        collectable = before.collectable
      }
      run("RELEASE attempt")
      if (revision - batchStart >= batchLimit) settle()
    }
  }

  return {
    revision: () => revision,
    compacted: () => compacted,
    get,
    list,
    listAt,
    count,
    byUid: (uid) => {
      const row = one("SELECT * FROM objects WHERE uid = ?", uid)
      return row === undefined ? undefined : stored(row)
    },
    dependents: (owner) => all("SELECT resource, namespace, name FROM owners WHERE owner = ?", owner).map(key),
    write,
    remove,
    changes: (resource, after, limit) =>
      all("SELECT * FROM history WHERE resource = ? AND revision > ? ORDER BY revision LIMIT ?", resource, after, limit)
        .map(change),
    transaction: (body) => attempt(body, "keep"),
    rehearse: (body) => attempt(body, "undo"),
    durable: Effect.callback<void>((resume) => {
      if (batchOpen) waiting.push(resume)
      else resume(Effect.void)
    }),
    settle,
    deleting: () => all("SELECT * FROM objects WHERE deleting = 1").map(stored),
    ownerless: (limit) =>
      all(
        "SELECT DISTINCT o.* FROM owners JOIN objects o USING (resource, namespace, name) " +
          "LEFT JOIN objects owner ON owner.uid = owners.owner WHERE owner.uid IS NULL AND o.deleting = 0 LIMIT ?",
        limit
      ).map(stored),
    subscribe: (listener) => {
      listeners.add(listener)
      return () => listeners.delete(listener)
    }
  }
}
