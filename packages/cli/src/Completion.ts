/**
 * What may come next on a command line: the one answer that the scripts of all shells ask for.
 */
import type * as Completions from "effect/cli/Completions"

/** Names that only a server or the configuration knows. */
export type Names = "sandbox" | "pool" | "agent" | "image" | "context"

/** A word that may come next, and what it means. */
export interface Candidate {
  readonly word: string
  readonly description: string
}

/** What may come next. */
export interface Next {
  readonly candidates: ReadonlyArray<Candidate>
  /** Names that may stand here too. */
  readonly names: Names | undefined
  /** A file may stand here. */
  readonly files: boolean
}

/** Flags whose values are names. */
const namesOfFlags: Readonly<Record<string, Names>> = { pool: "pool", context: "context", image: "image" }

/** Arguments that are names, by the path of their command. Those of the sandbox commands are called NAME. */
const namesOfArguments: Readonly<Record<string, Names>> = {
  "pool get": "pool",
  "pool scale": "pool",
  "pool delete": "pool",
  "pool rm": "pool",
  "agent drain": "agent",
  "agent resume": "agent",
  "image remove": "image",
  "image rm": "image",
  "config use-context": "context"
}

/** Commands whose NAME is a new one. */
const naming = new Set(["run", "pool create"])

/** Flags and arguments that are files. */
const fileWords = new Set(["file", "config", "FILE", "home"])

const words = (
  pairs: ReadonlyArray<readonly [word: string, description: string | undefined]>
): ReadonlyArray<Candidate> => pairs.map(([word, description]) => ({ word, description: description ?? "" }))

const takesValue = (flag: Completions.FlagDescriptor): boolean => flag.type._tag !== "Boolean"

const matches = (flag: Completions.FlagDescriptor, word: string): boolean =>
  word === `--${flag.name}` || flag.aliases.some((alias) => word === (alias.length === 1 ? `-${alias}` : `--${alias}`))

const flagCandidates = (flags: ReadonlyArray<Completions.FlagDescriptor>) =>
  words(flags.map((flag) => [`--${flag.name}`, flag.description?.replace(/ \(choices: [^)]*\)$/, "")] as const))

const valueOf = (flag: Completions.FlagDescriptor): Next => ({
  candidates: flag.type._tag === "Choice" ? words(flag.type.values.map((value) => [value, ""] as const)) : [],
  names: namesOfFlags[flag.name],
  files: fileWords.has(flag.name)
})

/**
 * What may come next. `typed` are the words after `fsb-ctl`, the last of which is being typed and may be empty; `flags`
 * are those of every command.
 */
export const next = (
  tree: Completions.CommandDescriptor,
  globals: ReadonlyArray<Completions.FlagDescriptor>,
  typed: ReadonlyArray<string>
): Next => {
  const before = typed.slice(0, -1)
  const current = typed.at(-1) ?? ""
  let command = tree
  const path: Array<string> = []
  let given = 0
  let pending: Completions.FlagDescriptor | undefined
  for (const word of before) {
    if (pending !== undefined) {
      pending = undefined
    } else if (word === "--") {
      // what follows is the program that is to be run
      return { candidates: [], names: undefined, files: true }
    } else if (word.startsWith("-")) {
      const flag = [...command.flags, ...globals].find((flag) => matches(flag, word))
      pending = flag !== undefined && takesValue(flag) ? flag : undefined
    } else {
      const subcommand = given === 0 ? command.subcommands.find(({ name }) => name === word) : undefined
      if (subcommand === undefined) given += 1
      else {
        command = subcommand
        path.push(word)
      }
    }
  }
  if (pending !== undefined) return valueOf(pending)
  const [name, ...rest] = current.split("=")
  if (rest.length > 0 && current.startsWith("--")) {
    const flag = [...command.flags, ...globals].find((flag) => matches(flag, name ?? ""))
    const { candidates, ...other } = flag === undefined
      ? { candidates: [], names: undefined, files: false }
      : valueOf(flag)
    return {
      ...other,
      candidates: candidates.map(({ description, word }) => ({ word: `${name}=${word}`, description }))
    }
  }
  if (current.startsWith("-")) {
    return { candidates: flagCandidates([...command.flags, ...globals]), names: undefined, files: false }
  }
  if (command.subcommands.length > 0) {
    return {
      candidates: words(command.subcommands.map(({ description, name }) => [name, description] as const)),
      names: undefined,
      files: false
    }
  }
  const argument = command.arguments[given] ?? command.arguments.findLast(({ variadic }) => variadic)
  if (argument === undefined) return { candidates: [], names: undefined, files: false }
  const key = path.join(" ")
  const isSandbox = argument.name === "NAME" && !naming.has(key)
  return {
    candidates: argument.type._tag === "Choice"
      ? words(argument.type.values.map((value) => [value, ""] as const))
      : [],
    names: namesOfArguments[key] ?? (isSandbox ? "sandbox" : undefined),
    files: fileWords.has(argument.name)
  }
}

/** The scripts: each hands the words to `fsb-ctl __complete` and offers what comes back. */
export const scripts = {
  bash: `# bash completion for fsb-ctl
_fsb_ctl() {
  local line words=() IFS=$'\\n'
  [[ \${COMP_WORDS[COMP_CWORD]} == "=" ]] && return
  for line in $(fsb-ctl __complete "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); do
    if [[ $line == ":files" ]]; then compopt -o default; else words+=("\${line%%$'\\t'*}"); fi
  done
  COMPREPLY=($(compgen -W "\${words[*]}" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _fsb_ctl fsb-ctl
`,
  zsh: `#compdef fsb-ctl
# zsh completion for fsb-ctl
_fsb_ctl() {
  local line files
  local -a found
  for line in \${(f)"$(fsb-ctl __complete "\${(@)words[2,CURRENT]}" 2>/dev/null)"}; do
    if [[ $line == ":files" ]]; then files=1; else found+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}"); fi
  done
  (( \${#found} )) && _describe fsb-ctl found
  [[ -n $files ]] && _files
}
compdef _fsb_ctl fsb-ctl
`,
  fish: `# fish completion for fsb-ctl
function __fsb_ctl_complete
  set -l words (commandline -opc) (commandline -ct)
  for line in (fsb-ctl __complete $words[2..-1] 2>/dev/null)
    if test "$line" = ":files"
      __fish_complete_path (commandline -ct)
    else
      echo $line
    end
  end
end
complete -c fsb-ctl -f -a '(__fsb_ctl_complete)'
`
} as const
