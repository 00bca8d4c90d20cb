/** The version of all programs and packages of a build; `make release` sets it. */
export const version = "0.1.0"
