/** The version of the agent, as its watchers see it. Kept equal to the package's. */
export const version = "0.1.0"
