/**
 * What calls fail with, told apart by `_tag`; each says what to do next.
 */
export * from "@fast-sandbox/core/Errors"
