package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// ourPrefixes mark variables that are meant for dbmazz.
var ourPrefixes = []string{"SINK_", "SOURCE_", "FLUSH_", "GRPC_", "BUS_"}

// foreignPrefixes mark variables that the gRPC libraries read.
var foreignPrefixes = []string{
	"GRPC_GO_", "GRPC_XDS_", "GRPC_TRACE", "GRPC_VERBOSITY", "GRPC_ENFORCE_ALPN_ENABLED", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
}

// warnUnknown names variables that look like ours and are not.
func (l *loader) warnUnknown() {
	var known []string
	for i := range variables {
		known = append(known, variables[i].names()...)
	}
	hasPrefix := func(name string, prefixes []string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
	}
	var unknown []string
	for name := range l.values {
		if hasPrefix(name, ourPrefixes) && !hasPrefix(name, foreignPrefixes) && !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		l.warn(name, "not a variable of dbmazz; ignored. Is %s meant?", nearest(name, known))
	}
}

// nearest returns the known name with the fewest edits.
func nearest(name string, known []string) string {
	best, bestEdits := "", -1
	for _, candidate := range known {
		if edits := editDistance(name, candidate); bestEdits < 0 || edits < bestEdits {
			best, bestEdits = candidate, edits
		}
	}
	return best
}

// editDistance is the Levenshtein distance. Names are cut, since anybody can set a
// variable with a very long one.
func editDistance(a, b string) int {
	const lengthMax = 64
	a, b = a[:min(len(a), lengthMax)], b[:min(len(b), lengthMax)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// ReadDotEnv reads NAME=value lines from a file, in the form that os.Environ returns.
// A file that does not exist gives nothing. Lines may start with export; a # starts a
// comment at the begin of a line or after white space; a value in single quotes is
// taken as it is, one in double quotes knows \n, \r, \t, \", \$ and \\. Quoted values end
// on their line. Nothing is expanded.
func ReadDotEnv(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read environment file: %w", err)
	}
	return parseDotEnv(path, string(data))
}

func parseDotEnv(path, text string) ([]string, error) {
	var environ []string
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		assignment, err := parseDotEnvLine(line)
		if err != nil {
			return nil, fmt.Errorf("%s line %d: %w", path, number, err)
		}
		environ = append(environ, assignment)
	}
	return environ, nil
}

// parseDotEnvLine never shows the value, which may be a password.
func parseDotEnvLine(line string) (string, error) {
	if rest, ok := strings.CutPrefix(line, "export"); ok && strings.TrimLeft(rest, " \t") != rest {
		line = strings.TrimLeft(rest, " \t")
	}
	name, value, ok := strings.Cut(line, "=")
	name = strings.TrimRight(name, " \t")
	if !ok || !isVariableName(name) {
		return "", errors.New("want NAME=value")
	}
	value = strings.TrimLeft(value, " \t")
	if value == "" || (value[0] != '"' && value[0] != '\'') {
		return name + "=" + unquotedValue(value), nil
	}
	text, rest, err := quotedValue(value)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if rest = strings.TrimSpace(rest); rest != "" && rest[0] != '#' {
		return "", fmt.Errorf("%s: there is text after the closing quote", name)
	}
	return name + "=" + text, nil
}

func isVariableName(name string) bool {
	for i, r := range name {
		letter := r == '_' || (r >= 'A' && r <= 'Z') || (r >= 'a' && r <= 'z')
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

func unquotedValue(value string) string {
	for i := range len(value) {
		if value[i] == '#' && (i == 0 || value[i-1] == ' ' || value[i-1] == '\t') {
			value = value[:i]
			break
		}
	}
	return strings.TrimRight(value, " \t")
}

// quotedValue reads a value that starts with a quote and returns what follows it.
func quotedValue(value string) (text, rest string, err error) {
	quote := value[0]
	var b strings.Builder
	for i := 1; i < len(value); i++ {
		c := value[i]
		switch {
		case c == quote:
			return b.String(), value[i+1:], nil
		case c == '\\' && quote == '"' && i+1 < len(value):
			i++
			b.WriteString(unescape(value[i]))
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("the closing quote is missing")
}

func unescape(c byte) string {
	switch c {
	case 'n':
		return "\n"
	case 'r':
		return "\r"
	case 't':
		return "\t"
	case '"', '\\', '$':
		return string(c)
	}
	return `\` + string([]byte{c})
}

// MergeEnviron adds what a .env file holds to the environment. The environment wins, also
// where the file sets the same thing by another name: with STARROCKS_URL in the
// environment SINK_URL of the file does not count.
func MergeEnviron(dotenv, environ []string) []string {
	set := valuesOf(environ)
	taken := map[string]bool{}
	for i := range variables {
		names := variables[i].names()
		if slices.ContainsFunc(names, func(name string) bool { _, ok := set[name]; return ok }) {
			for _, name := range names {
				taken[name] = true
			}
		}
	}
	var merged []string
	for _, assignment := range dotenv {
		name, _, _ := strings.Cut(assignment, "=")
		if _, ok := set[name]; !ok && !taken[name] {
			merged = append(merged, assignment)
		}
	}
	return append(merged, environ...)
}
