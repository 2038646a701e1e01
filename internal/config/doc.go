// Package config reads the configuration from environment variables.
//
// One table (variables.go) holds every variable: its name, older names, default,
// description and how its text becomes a field of Config. Loading, the help text and
// the table in the README all come from it.
//
// The promise: every problem is reported at once, each with the variable's name, what is
// wrong and what is right; nothing that does not parse becomes a default; and no secret
// appears in an error, a warning or a log line.
package config
