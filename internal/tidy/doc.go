// Package tidy holds the house rules that no linter knows, as one fast test.
//
//   - Every package has exactly one package comment, and none is named like a drawer (util, common, types).
//   - A file has at most 500 lines, a function body at most 70. Comments do not count, nor does generated code;
//     in test files the lines of a composite literal, a table of cases, do not count either.
//   - A test is skipped only with the reason in a comment on the same or the line before: "// skip: reason".
//   - A TODO links its issue.
//   - An error says what was being done, not that it failed to.
//   - No tracked file names a package registry's host or a path of somebody's machine.
package tidy
