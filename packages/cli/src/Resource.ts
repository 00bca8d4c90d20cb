/**
 * Resources as servers send them, in JSON.
 */

/** The resource as kubectl shows it: without the notes of who wrote which field. Throws where it is no JSON. */
export const parse = (resource: string): unknown =>
  // a label may have that name, but is no list
  JSON.parse(resource, (key, value: unknown) => key === "managedFields" && Array.isArray(value) ? undefined : value)
