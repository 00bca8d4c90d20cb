/**
 * Where the Kubernetes API is and who we are to it.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

/** The configuration can't be used. `source` is the file or the place it came from. */
export class KubeConfigError extends Schema.TaggedError<KubeConfigError>()("KubeConfigError", {
  source: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.source}: ${this.problem}`
  }
}

/** What proves to the server who we are, at this moment. */
export interface Credentials {
  /** Complete values of `Authorization` and impersonation headers. */
  readonly headers: { readonly [name: string]: string }
  /** A client certificate and its key, PEM encoded. */
  readonly certificate?: { readonly cert: string; readonly key: string } | undefined
}

/** How the server is reached. */
export interface Cluster {
  /** `https://host:port`, with a path where the API is behind one. For a unix socket: `http://localhost`. */
  readonly server: string
  /** The unix socket that the server listens on. */
  readonly socketPath?: string | undefined
  /** PEM encoded certificates that the server's is checked against; absent: the system's. */
  readonly ca?: string | undefined
  readonly insecureSkipTlsVerify?: boolean | undefined
  /** The name that the server's certificate is checked against, if it is not the host's. */
  readonly tlsServerName?: string | undefined
  readonly proxyUrl?: string | undefined
}

/** Options of {@link KubeConfig} `layer`. `server` may be `unix:///path/to/socket`. */
export interface KubeConfigOptions {
  readonly server: string
  readonly token?: Redacted.Redacted | string | undefined
  readonly ca?: string | undefined
  readonly namespace?: string | undefined
}

/** Where the Kubernetes API is and who we are to it. */
export class KubeConfig extends Context.Service<KubeConfig, {
  readonly cluster: Cluster
  /** The namespace of the current context, `default` if it names none. */
  readonly namespace: string
  /** Current credentials: read again from rotating files, renewed through exec plugins and OIDC as they expire. */
  readonly credentials: Effect.Effect<Credentials, KubeConfigError>
}>()("@fast-sandbox/kube/KubeConfig") {
  /** `KUBECONFIG`, else `~/.kube/config`, else the Pod's service account: what kubectl does. */
  declare static readonly layerDefault: Layer.Layer<KubeConfig, KubeConfigError>
  /** A kubeconfig file, and one of its contexts instead of the current one. */
  declare static readonly layerFile: (
    path: string,
    context?: string | undefined
  ) => Layer.Layer<KubeConfig, KubeConfigError>
  /** The Pod's service account. */
  declare static readonly layerInCluster: Layer.Layer<KubeConfig, KubeConfigError>
  /** A known server. */
  declare static readonly layer: (options: KubeConfigOptions) => Layer.Layer<KubeConfig>
}
