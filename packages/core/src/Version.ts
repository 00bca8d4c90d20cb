<<<<<<< HEAD
/**
 * The version of this build; every package carries the same.
 */
=======
/** The version of all programs and packages of a build; `infra/setup/release.ts` sets it. */
>>>>>>> ed9ded4 (Run the cluster's programs from images, as their manifests say)
export const version = "0.1.0"
