/**
 * What fsb-ctl uses of the YAML library. A module of its own, so that it is loaded only by the calls that need it.
 */
export { isNode, LineCounter, parseDocument, stringify } from "yaml"
