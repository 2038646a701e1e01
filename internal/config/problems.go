package config

import (
	"errors"
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with one variable.
type Problem struct {
	Variable string
	Text     string
}

// Error is everything that is wrong with the configuration.
type Error struct{ Problems []Problem }

// Error returns one line per problem.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("the configuration is wrong:")
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.Variable + ": " + p.Text)
	}
	return b.String()
}

// Warning is something about one variable that an operator should know.
type Warning struct {
	Variable string
	Text     string
}

// String returns the warning as one line.
func (w Warning) String() string { return w.Variable + ": " + w.Text }

// show quotes a value for a message and cuts it when it is long.
func show(value string) string {
	const showMax = 100
	if len(value) > showMax {
		value = strings.ToValidUTF8(value[:showMax], "") + "..."
	}
	return fmt.Sprintf("%q", value)
}

// joinLine makes one error of one line of several.
func joinLine(problems []error) error {
	if len(problems) == 0 {
		return nil
	}
	texts := make([]string, len(problems))
	for i, err := range problems {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}
