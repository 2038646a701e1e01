package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"
)

// bar shows progress on a terminal several times a second, elsewhere as a line every
// five seconds.
type bar struct {
	out      io.Writer
	terminal bool
	width    int
	look     func() (done float64, text string)
	begun    time.Time
	quit     chan struct{}
	ended    chan struct{}
}

// newBar begins to show what look returns: the share that is done, and a text.
func newBar(out io.Writer, look func() (done float64, text string)) *bar {
	b := &bar{out: out, look: look, begun: time.Now(), quit: make(chan struct{}), ended: make(chan struct{})}
	every := 5 * time.Second
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) { //nolint:gosec // A file descriptor.
		b.terminal, b.width, every = true, 100, 200*time.Millisecond
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 { //nolint:gosec // A file descriptor.
			b.width = width
		}
	}
	go b.run(every)
	return b
}

func (b *bar) run(every time.Duration) {
	defer close(b.ended)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			b.draw()
		case <-b.quit:
			if b.terminal {
				fmt.Fprint(b.out, "\r\x1b[K")
			}
			return
		}
	}
}

func (b *bar) draw() {
	done, text := b.look()
	if !b.terminal {
		fmt.Fprintf(b.out, "%3.0f%%  %s\n", done*100, text)
		return
	}
	const cells = 24
	full := int(done * cells)
	line := fmt.Sprintf("[%s%s] %3.0f%%  %s  %s", strings.Repeat("=", full), strings.Repeat(" ", cells-full), done*100, text, b.left(done))
	if runes := []rune(line); len(runes) >= b.width {
		line = string(runes[:b.width-1])
	}
	fmt.Fprint(b.out, "\r\x1b[K"+line)
}

// left estimates the time to the end.
func (b *bar) left(done float64) string {
	since := time.Since(b.begun)
	if done < 0.02 || done >= 1 || since < 2*time.Second {
		return ""
	}
	left := time.Duration(float64(since) * (1 - done) / done)
	return "about " + left.Round(time.Second).String() + " left"
}

// stop clears the bar.
func (b *bar) stop() {
	close(b.quit)
	<-b.ended
}

// grouped prints a number with a comma between thousands.
func grouped[T int64 | uint64](n T) string {
	digits := strconv.FormatInt(int64(n), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		if digits[i-1] != '-' {
			digits = digits[:i] + "," + digits[i:]
		}
	}
	return digits
}
