package apply

import (
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// paced is a collector with whole transactions of one row.
func paced(rows, bytes int) *collector {
	c := newCollector("e", cdc.Checkpoint{})
	c.changes, c.bytes = make([]change, rows), bytes
	c.commits = []commit{{n: rows, end: 1}}
	return c
}

func TestBatchesKeepTheirDistanceUnlessTheyAreFull(t *testing.T) {
	t.Parallel()
	began := time.Now()
	config := Config{FlushBytes: 1000, MinSpacing: 100 * time.Millisecond}
	settings := Settings{FlushRows: 10, FlushInterval: 5 * time.Second}
	for _, test := range []struct {
		name        string
		rows, bytes int
		since       time.Duration // since the batch before
		more        bool
		draining    bool
		due         bool
		wait        time.Duration
	}{
		{name: "a lone change, the sink long idle", rows: 1, since: time.Minute, due: true},
		{name: "a lone change right after a batch", rows: 1, since: 30 * time.Millisecond, wait: 70 * time.Millisecond},
		{name: "a lone change when the distance is over", rows: 1, since: 100 * time.Millisecond, due: true},
		{name: "more is about to come", rows: 1, since: time.Minute, more: true, wait: 5 * time.Second},
		{name: "enough rows, more to come", rows: 10, since: time.Minute, more: true, due: true},
		{name: "enough rows right after a batch", rows: 10, since: 30 * time.Millisecond, more: true, wait: 70 * time.Millisecond},
		{name: "enough bytes right after a batch", rows: 2, bytes: 1000, since: time.Millisecond, more: true, due: true},
		{name: "told to drain", rows: 1, since: time.Millisecond, more: true, draining: true, due: true},
	} {
		p := pacer{last: began.Add(-test.since), oldest: began}
		n, due, wait, err := p.due(paced(test.rows, test.bytes), pace{Settings: settings, config: config, more: test.more, draining: test.draining, now: began})
		if err != nil || due != test.due || (due && n != test.rows) || (!due && wait != test.wait) {
			t.Errorf("%s: due %t with %d rows, else after %s, error %v; want %t, else after %s", test.name, due, n, wait, err, test.due, test.wait)
		}
	}
}

func TestIntervalBoundsTheDistance(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p := pacer{last: now.Add(-20 * time.Millisecond), oldest: now.Add(-20 * time.Millisecond)}
	settings := Settings{FlushRows: 10, FlushInterval: 20 * time.Millisecond}
	if _, due, wait, err := p.due(paced(1, 1), pace{Settings: settings, config: Config{FlushBytes: 1000, MinSpacing: time.Second}, more: true, now: now}); !due || err != nil {
		t.Errorf("a change that has waited for FLUSH_INTERVAL_MS waits for another %s, error %v", wait, err)
	}
}
