/**
 * The version of this build; every package carries the same.
 */
export const version = "0.1.0"
