package capture

import (
	"context"
	"testing"
	"time"
)

// nap has a pace that has seen so many quick reads wait once. inside tells what the socket
// holds after a time.
func nap(reads, message int, inside func(time.Duration) int, set func(*pace)) (took time.Duration) {
	began := time.Unix(0, 0)
	p := newPace(func(bool) {})
	p.now = func() time.Time { return began.Add(took) }
	p.sleep = func(_ context.Context, d time.Duration) bool { took += d; return true }
	p.inside, p.narrow = func() int { return inside(took) }, true
	if set != nil {
		set(p)
	}
	for range reads {
		p.read(time.Microsecond)
	}
	p.wait(context.Background(), message)
	return took
}

func TestPace(t *testing.T) {
	t.Parallel()
	const busy = 10
	perMs := func(bytes, most int) func(time.Duration) int {
		return func(d time.Duration) int { return min(int(d.Milliseconds())*bytes, most) }
	}
	full := 200 << 10
	for _, test := range []struct {
		name           string
		reads, message int
		inside         func(time.Duration) int
		set            func(*pace)
		want           time.Duration
	}{
		{"a lone transaction", 5, 100, perMs(1<<10, full), nil, 0},
		{"few changes", busy, 100, perMs(1<<10, full), nil, lightTime},
		{"nothing more", busy, 100, perMs(0, 0), nil, lightTime},
		{"it fills", busy, 100, perMs(20<<10, full), nil, 10*tick + stillTicks*tick + gatherTime},
		{"the server had gathered more", busy, 100, func(time.Duration) int { return full }, nil, 0},
		{"it never fills", busy, 100, perMs(4<<10, 1<<30), nil, napMax},
		{"large messages", busy, 8 << 10, perMs(20<<10, full), nil, tick},
		{"a server that is far", busy, 100, perMs(20<<10, full), func(p *pace) { p.narrow = false }, tick},
		{"nothing is known of the socket", busy, 100, nil, func(p *pace) { p.inside, p.narrow = nil, false }, tick},
		{"more records", busy, 100, func(time.Duration) int { return 1 }, func(p *pace) { p.records = true }, 0},
		{"no more records", busy, 100, perMs(1<<10, full), func(p *pace) { p.records = true }, lightTime},
	} {
		if took := nap(test.reads, test.message, test.inside, test.set); took != test.want {
			t.Errorf("%s: a nap of %s, want %s", test.name, took, test.want)
		}
	}
	p := newPace(func(bool) {})
	for range busy {
		p.read(time.Microsecond)
	}
	if p.read(2 * quietWait); p.busy() {
		t.Error("busy after a pause")
	}
}
