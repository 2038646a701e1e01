package capture

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// SetupError says what about the source prevents streaming. Each problem is one line
// that says what to run.
type SetupError struct {
	Problems []string
}

// Error returns one problem per line.
func (e *SetupError) Error() string { return strings.Join(e.Problems, "\n") }

// setupProblem is a SetupError of one line.
func setupProblem(format string, args ...any) error {
	return &SetupError{Problems: []string{fmt.Sprintf(format, args...)}}
}

// IdentityError tells that the server, its slot, the stream and the sink do not belong
// together any more, so that going on would lose changes. Nothing is changed and
// nothing is streamed until an operator has acted.
type IdentityError struct {
	// Reason says what does not fit, Recovery what to do about it.
	Reason, Recovery string
}

// Error returns reason and recovery.
func (e *IdentityError) Error() string {
	return "refuse to stream: " + e.Reason + ". Recovery: " + e.Recovery
}

// oneLine prints an error of PostgreSQL in one line, with detail and hint.
func oneLine(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		text := pgErr.Message
		if pgErr.Detail != "" {
			text += ". " + pgErr.Detail
		}
		if pgErr.Hint != "" {
			text += ". Hint: " + pgErr.Hint
		}
		return strings.ReplaceAll(text, "\n", " ") + " (SQLSTATE " + pgErr.Code + ")"
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}

// encodingProblem tells that the server could not turn a value into the encoding of the
// connection: a character that UTF-8 has no equivalent of, or bytes that are none in the
// encoding of the database.
func encodingProblem(e *pgconn.PgError) bool { return e.Code == "22P05" || e.Code == "22021" }

// repeatAfter is how often an error that stays the same is logged.
const repeatAfter = 5 * time.Minute

// complaint keeps an error that comes again at every attempt from filling the log. The
// status shows it all the time.
type complaint struct {
	text string
	at   time.Time
}

var numbers = regexp.MustCompile(`[0-9]+`)

// due reports whether the error is to be logged: it is another one, but for numbers such as
// a pid, or was logged long ago.
func (c *complaint) due(text string, now time.Time) bool {
	text = numbers.ReplaceAllString(text, "0")
	if text == c.text && now.Sub(c.at) < repeatAfter {
		return false
	}
	c.text, c.at = text, now
	return true
}
