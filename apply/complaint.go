package apply

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// complainEvery is how often an error that stays the same is logged.
const complainEvery = 5 * time.Minute

// complaints logs errors that repeat: at once when one is another than before, and
// otherwise at a slow rate. The status has them all the time.
type complaints struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	last map[string]complaint // by what failed
}

type complaint struct {
	text  string
	at    time.Time
	times int // since it was logged
}

func newComplaints(log *slog.Logger) *complaints {
	return &complaints{log: log, now: time.Now, last: map[string]complaint{}}
}

// repeat logs the error of what, unless it was logged a short while ago.
func (c *complaints) repeat(ctx context.Context, level slog.Level, message, what string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text, before := withoutNumbers(err.Error()), c.last[what]
	if before.text == text && c.now().Sub(before.at) < complainEvery {
		before.times++
		c.last[what] = before
		return
	}
	c.last[what] = complaint{text: text, at: c.now()}
	attrs := []slog.Attr{slog.Any("err", err)}
	if what != "" {
		attrs = append(attrs, slog.String("what", what))
	}
	if before.text == text {
		attrs = append(attrs, slog.Int("repeated", before.times+1))
	}
	c.log.LogAttrs(ctx, level, message, attrs...) //nolint:sloglint // The callers' messages are constants.
}

// forget makes the next error of what be logged at once.
func (c *complaints) forget(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.last, what)
}

// over tells that what has succeeded, if it had failed.
func (c *complaints) over(ctx context.Context, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, failed := c.last[what]; failed {
		delete(c.last, what)
		c.log.InfoContext(ctx, "sink accepts again", "what", what)
	}
}

// withoutNumbers makes errors equal that differ in a port or a count.
func withoutNumbers(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, text)
}
