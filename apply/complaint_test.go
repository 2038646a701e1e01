package apply_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dbmazz/dbmazz/apply"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func TestAnErrorThatRepeatsIsLoggedAtOnceAndThenNowAndAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log lines
		sink := newRecorder()
		sink.arrived = make(chan struct{}, 10_000)
		n := 0
		fails := func(text string) {
			sink.mu.Lock()
			defer sink.mu.Unlock()
			n++
			sink.fail = nil
			if text != "" {
				sink.fail = fmt.Errorf("%s on port %d", text, n)
			}
		}
		fails("connection refused")
		b := newBench(t, apply.Config{Logger: slog.New(slog.NewTextHandler(&log, nil)), BackoffMax: time.Second}, sink)
		b.transaction(t, b.insert("a", "1", "x"))
		for range 100 {
			<-time.After(time.Second)
			fails("connection refused")
		}
		if got := log.count("connection refused"); got != 1 {
			t.Fatalf("logged %d times in 100 s", got)
		}
		if s := b.Status(); s.State != apply.Failing || !strings.Contains(s.Err, "connection refused") || s.Failures < 50 {
			t.Fatalf("%+v", s)
		}
		fails("table is gone")
		<-time.After(5 * time.Second)
		if got := log.count("table is gone"); got != 1 {
			t.Fatalf("another error is logged %d times", got)
		}
		<-time.After(11 * time.Minute)
		if got := log.count("table is gone"); got != 3 {
			t.Fatalf("after eleven minutes it is logged %d times", got)
		}
		fails("")
		<-time.After(5 * time.Second)
		if log.count("sink accepts again") != 1 || b.Status().Err != "" {
			t.Fatalf("%+v", b.Status())
		}
		b.stop()
	})
}
