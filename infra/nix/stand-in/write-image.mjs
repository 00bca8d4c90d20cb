// write-image.mjs CONF CLOSURE ROOT OUT: a docker-archive tar (manifest.json) of one layer per store path plus one of ROOT.
import { createHash } from "node:crypto"
import fs from "node:fs"
import path from "node:path"
const [confPath, closurePath, root, out] = process.argv.slice(2)
const conf = JSON.parse(fs.readFileSync(confPath, "utf8"))
const paths = [
  ...new Set(
    fs.readFileSync(closurePath, "utf8").split("\n").filter((l) =>
      l.startsWith("/nix/store/") && !l.endsWith(".drv") && !l.endsWith("-roots")
    )
  )
].toSorted()
const MTIME = Math.max(0, Math.floor(Date.parse(conf.created) / 1000))
function header(name, { mode, uid = 0, gid = 0, size = 0, type = "0", link = "" }) {
  const blocks = []
  if (Buffer.byteLength(name) > 100 || Buffer.byteLength(link) > 100) {
    const rec = (k, v) => {
      let n = k.length + Buffer.byteLength(v) + 3
      n += String(n + String(n).length).length
      return `${n} ${k}=${v}\n`
    }
    const body = Buffer.from(
      (Buffer.byteLength(name) > 100 ? rec("path", name) : "") +
        (Buffer.byteLength(link) > 100 ? rec("linkpath", link) : "")
    )
    blocks.push(
      header("PaxHeader", { mode: 0o644, size: body.length, type: "x" }),
      body,
      Buffer.alloc((512 - (body.length % 512)) % 512)
    )
  }
  const h = Buffer.alloc(512),
    put = (s, o, n) => h.write(String(s), o, n),
    oct = (v, o, n) => put(v.toString(8).padStart(n - 1, "0"), o, n)
  put(Buffer.from(name).subarray(0, 100).toString("latin1"), 0, 100)
  oct(mode, 100, 8)
  oct(uid, 108, 8)
  oct(gid, 116, 8)
  oct(size, 124, 12)
  oct(MTIME, 136, 12)
  h.fill(32, 148, 156)
  put(type, 156, 1)
  put(link.slice(0, 100), 157, 100)
  put("ustar\0", 257, 6)
  put("00", 263, 2)
  let sum = 0
  for (const c of h) sum += c
  put(sum.toString(8).padStart(6, "0") + "\0 ", 148, 8)
  return Buffer.concat([...blocks, h])
}
function* walk(abs, name) {
  const st = fs.lstatSync(abs)
  if (st.isDirectory()) {
    if (name) yield { name: name + "/", abs, st, type: "5" }
    for (const e of fs.readdirSync(abs).toSorted()) yield* walk(path.join(abs, e), name ? `${name}/${e}` : e)
  } else if (st.isSymbolicLink()) yield { name, abs, st, type: "2", link: fs.readlinkSync(abs) }
  else if (st.isFile()) yield { name, abs, st, type: "0" }
}
function tar(fd, entries) { // -> {size, sha256}
  const hash = createHash("sha256")
  let size = 0
  const w = (b) => {
    hash.update(b)
    fs.writeSync(fd, b)
    size += b.length
  }
  for (const e of entries) {
    const data = e.data ?? (e.type === "0" ? fs.readFileSync(e.abs) : undefined)
    w(header(e.name, {
      mode: e.mode ?? (e.st.mode & 0o7777),
      uid: e.uid ?? e.st?.uid ?? 0,
      gid: e.gid ?? e.st?.gid ?? 0,
      size: data?.length ?? 0,
      type: e.type,
      link: e.link ?? ""
    }))
    if (data) {
      w(data)
      const pad = (512 - (data.length % 512)) % 512
      if (pad) w(Buffer.alloc(pad))
    }
  }
  w(Buffer.alloc(1024))
  return { size, sha256: hash.digest("hex") }
}
const storeDirs = [{ name: "nix/", type: "5", mode: 0o755 }, { name: "nix/store/", type: "5", mode: 0o755 }]
const groups = paths.slice(0, conf.maxLayers - 2).map((p) => [p])
const rest = paths.slice(conf.maxLayers - 2)
if (rest.length) groups.push(rest)
const layers = [], tmp = out + ".parts"
fs.mkdirSync(tmp)
const layer = (entries, comment) => {
  const f = path.join(tmp, String(layers.length)), fd = fs.openSync(f, "w")
  const r = tar(fd, entries)
  fs.closeSync(fd)
  layers.push({ ...r, f, comment })
}
for (const g of groups) {
  layer([
    ...storeDirs,
    ...g.flatMap((p) => [...walk(p, p.slice(1))].map((e) => ({ ...e, uid: conf.uid, gid: conf.gid })))
  ], g.join(" "))
}
layer(walk(root, ""), "customisation")
const cfg = JSON.stringify({
  created: conf.created,
  architecture: conf.architecture,
  os: "linux",
  config: conf.config,
  rootfs: { type: "layers", diff_ids: layers.map((l) => "sha256:" + l.sha256) },
  history: layers.map((l) => ({ created: conf.created, comment: l.comment }))
})
const cfgName = createHash("sha256").update(cfg).digest("hex") + ".json"
const tag = conf.tag ?? createHash("sha256").update(cfg).digest("hex").slice(0, 32)
const fd = fs.openSync(out, "w")
tar(
  fd,
  (function*() {
    for (const l of layers) {
      yield {
        name: `${l.sha256}/layer.tar`,
        type: "0",
        mode: 0o444,
        abs: l.f,
        data: fs.readFileSync(l.f)
      }
    }
    yield { name: cfgName, type: "0", mode: 0o444, data: Buffer.from(cfg) }
    yield {
      name: "manifest.json",
      type: "0",
      mode: 0o444,
      data: Buffer.from(JSON.stringify([{
        Config: cfgName,
        RepoTags: [`${conf.name}:${tag}`],
        Layers: layers.map((l) => `${l.sha256}/layer.tar`)
      }]))
    }
  })()
)
fs.closeSync(fd)
