package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// quietEvery is how often a line is printed where there is no terminal to draw on.
const quietEvery = 2 * time.Second

// console prints steps as they are done, and below them what is going on: a panel that is drawn over and over on a
// terminal, a line now and then elsewhere.
type console struct {
	out      io.Writer
	terminal bool
	width    func() int

	mu    sync.Mutex
	drawn int // Lines of the panel on the screen.
	quiet time.Time
	// detail is what the step at work is at.
	detail string
}

func newConsole(out *os.File) *console {
	fd := int(out.Fd()) //nolint:gosec // A descriptor is small.
	return &console{
		out: out, terminal: term.IsTerminal(fd) && os.Getenv("TERM") != "dumb",
		width: func() int {
			width, _, err := term.GetSize(fd)
			if err != nil || width < 20 {
				return 80
			}
			return width
		},
	}
}

// print writes lines that stay, above the panel.
func (c *console) print(lines ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.erase()
	for _, line := range lines {
		fmt.Fprintln(c.out, line)
	}
}

// show draws the panel anew, or prints the brief form of it if the last one is some time ago.
func (c *console) show(brief string, panel ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.terminal {
		if time.Since(c.quiet) >= quietEvery {
			c.quiet = time.Now()
			fmt.Fprintln(c.out, brief)
		}
		return
	}
	var text strings.Builder
	if c.drawn > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", c.drawn)
	}
	width := c.width()
	for _, line := range panel {
		text.WriteString("\x1b[2K" + cut(line, width-1) + "\n")
	}
	text.WriteString("\x1b[J") // What a taller panel left.
	c.drawn = len(panel)
	fmt.Fprint(c.out, text.String())
}

// erase removes the panel.
func (c *console) erase() {
	if c.drawn > 0 {
		fmt.Fprintf(c.out, "\x1b[%dA\x1b[J", c.drawn)
		c.drawn = 0
	}
	c.quiet = time.Now() // A line after a step would repeat it.
}

// cut keeps a line from wrapping, which would spoil the next drawing.
func cut(line string, width int) string {
	if utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:max(0, width-1)]) + "…"
}

// step runs one step of the demo, showing that it is at work and then how long it took.
func (c *console) step(what string, run func() (detail string, err error)) error {
	begun := time.Now()
	stop := c.ticking(what, begun)
	detail, err := run()
	stop()
	if err != nil {
		c.print("  !!  " + what)
		return err
	}
	if detail != "" {
		what += ": " + detail
	}
	c.print("  ok  " + what + "  (" + seconds(time.Since(begun)) + ")")
	return nil
}

// ticking shows a step with its age until the function that it returns is called.
func (c *console) ticking(what string, begun time.Time) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			line := "  ..  " + c.doing(what) + "  (" + seconds(time.Since(begun)) + ")"
			c.show(line, line)
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
		c.now("")
	}
}

// now says what a step is at.
func (c *console) now(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.detail = what
}

func (c *console) doing(what string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.detail != "" {
		return what + ": " + c.detail
	}
	return what
}

func seconds(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// lag prints milliseconds.
func lag(ms uint64) string {
	if ms < 1000 {
		return fmt.Sprintf("%d ms", ms)
	}
	return fmt.Sprintf("%.1f s", float64(ms)/1000)
}

// count prints a number with commas.
func count[T ~int | ~int64 | ~uint64](n T) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// size prints bytes.
func size(bytes uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value, unit := float64(bytes), 0
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	if unit == 0 || value >= 100 {
		return fmt.Sprintf("%.0f %s", value, units[unit])
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

// bar draws a share of one.
func bar(share float64, width int) string {
	full := int(min(max(share, 0), 1) * float64(width))
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}
