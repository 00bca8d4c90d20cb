/**
 * Stands in for `Intl.Segmenter` in the bundle: the real one is made when it is first used.
 *
 * @public The bundler puts it in.
 */
export class LazySegmenter {
  readonly #arguments: ConstructorParameters<typeof Intl.Segmenter>
  #segmenter: Intl.Segmenter | undefined

  constructor(...args: ConstructorParameters<typeof Intl.Segmenter>) {
    this.#arguments = args
  }

  segment(text: string): Intl.Segments {
    // by another spelling, since the bundler replaces the usual one by this class
    this.#segmenter ??= new globalThis["Intl"]["Segmenter"](...this.#arguments)
    return this.#segmenter.segment(text)
  }
}
