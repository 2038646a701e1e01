package chaos_test

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// watcher samples what must hold at every moment.
type watcher struct {
	r        *run
	load     *load
	conn     *pgx.Conn
	versions map[string]map[string]int64
	// from is where the slot was first seen. What was committed before it was made is
	// copied and not streamed.
	from    pglogrepl.LSN
	samples int
}

// sampleEvery is the pause between two samples.
const sampleEvery = 40 * time.Millisecond

// watch samples until ctx is done.
func (w *watcher) watch(ctx context.Context) {
	defer func() {
		if w.conn != nil {
			_ = w.conn.Close(context.WithoutCancel(ctx))
		}
	}()
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.samples++
		w.confirmedIsApplied(ctx)
		if w.samples%5 == 0 {
			w.versionsGoUp()
			w.memoryIsBounded()
		}
	}
}

// confirmed asks PostgreSQL for the slot's position. ok is false while there is nobody
// to ask.
func (w *watcher) confirmed(ctx context.Context) (at pglogrepl.LSN, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if w.conn == nil || w.conn.IsClosed() {
		conn, err := w.r.connect(ctx)
		if err != nil {
			return 0, false
		}
		w.conn = conn
	}
	var text string
	err := w.conn.QueryRow(ctx, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1 AND confirmed_flush_lsn IS NOT NULL", slotName).Scan(&text)
	if err != nil {
		_ = w.conn.Close(ctx)
		return 0, false
	}
	at, err = pglogrepl.ParseLSN(text)
	return at, err == nil
}

// confirmedIsApplied: what committed before the position that the slot has confirmed is
// in the sink. The position is read first.
func (w *watcher) confirmedIsApplied(ctx context.Context) {
	confirmed, ok := w.confirmed(ctx)
	if !ok {
		return
	}
	if w.from == 0 {
		w.from = confirmed
	}
	w.load.mu.Lock()
	committed := slices.DeleteFunc(slices.Clone(w.load.committed), func(c commitPoint) bool { return c.before < w.from })
	w.load.mu.Unlock()
	if len(committed) == 0 {
		return
	}
	for {
		hidden := w.r.invisibleFor() > 0
		missing := w.missing(committed, confirmed)
		switch {
		case missing == nil:
			return
		case !hidden:
			w.r.problem(passed, "the slot has confirmed %s, but transaction %d, committed before %s, is not in the sink", confirmed, missing.n, missing.at)
			return
		case ctx.Err() != nil:
			return // The comparison at the end is about it.
		}
		timer := time.NewTimer(sampleEvery)
		<-timer.C
	}
}

func (w *watcher) missing(committed []commitPoint, confirmed pglogrepl.LSN) *commitPoint {
	data, err := w.r.sink.Rows(sinkDatabase, "ledger")
	if err != nil {
		data.Rows = nil // The table was not made yet, so nothing may be confirmed.
	}
	there := make(map[string]bool, len(data.Rows))
	for _, row := range data.Rows {
		there[row[0].Text] = true
	}
	for i := range committed {
		if c := &committed[i]; c.at <= confirmed && !there[strconv.FormatInt(c.n, 10)] {
			return c
		}
	}
	return nil
}

// versionsGoUp: the version of a row in the sink never goes back.
func (w *watcher) versionsGoUp() {
	if w.r.wiped.Load() {
		return
	}
	for _, table := range []string{"account", "line", "document", "scratch"} {
		data, err := w.r.sink.Rows(sinkDatabase, table)
		if err != nil {
			continue // Not made yet.
		}
		version := slices.Index(data.Columns, versionColumn)
		key := []int{0}
		if table == "line" {
			key = []int{slices.Index(data.Columns, "order_id"), slices.Index(data.Columns, "pos")}
		}
		seen := w.versions[table]
		if seen == nil {
			seen = map[string]int64{}
			w.versions[table] = seen
		}
		for _, row := range data.Rows {
			name := ""
			for _, i := range key {
				name += row[i].Text + "/"
			}
			now, err := strconv.ParseInt(row[version].Text, 10, 64)
			if err != nil || now < seen[name] {
				w.r.problem(back, "%s %s had version %d in the sink and has %s", table, name, seen[name], row[version].Text)
			}
			seen[name] = now
		}
	}
}

func (w *watcher) memoryIsBounded() {
	for _, s := range w.r.stages {
		used := s.memory()
		s.peak = max(s.peak, used)
		if used > memoryLimit {
			w.r.problem(memory, "%s has used %d MiB of %d", s.name, used>>20, memoryLimit>>20)
		}
	}
}
