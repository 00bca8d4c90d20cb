/** What the scripts that containerd runs for us have in common. */

/** A word as a POSIX shell reads it back: single quotes keep everything but themselves. */
export const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`
