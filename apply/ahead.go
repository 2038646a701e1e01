package apply

import (
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// aheadMax is for how long what was done ahead is of use: the rows carry its time.
const aheadMax = time.Minute

// ahead is what was done for a batch while the one before was being loaded.
type ahead struct {
	changes  []change // of the batch
	syncedAt time.Time
	tables   []*tableChanges
}

// of tells whether it was done for these changes.
func (a *ahead) of(changes []change) bool {
	return a != nil && len(a.changes) == len(changes) && &a.changes[0] == &changes[0]
}

// fits tells whether it is of use for a batch of these changes that begins now.
func (a *ahead) fits(changes []change, now time.Time) bool {
	return a.of(changes) && now.Sub(a.syncedAt) < aheadMax
}

// gains tells whether the first changes can be worked on before the loader asks for them: they
// are a full batch, which nothing can join, and that was not done yet. The batch of a plan that
// was stored before has its own time, and is never worked on.
func (s *session) gains(c *collector, n int, done *ahead) bool {
	return s.replay == nil && n > 0 && c.bytes >= s.config.FlushBytes && c.changes[0].kind != cdc.KindTruncate && !done.of(c.changes[:n])
}

// ahead compacts the changes, and has the sink encode the rows if it can. What fails is left
// for the loader, which meets it again.
func (s *session) ahead(changes []change) *ahead {
	a := &ahead{changes: changes, syncedAt: syncedAt(time.Now()), tables: split(changes)}
	encoder, _ := s.sink.(Encoder)
	var group errgroup.Group
	group.SetLimit(s.config.Parallel)
	for _, t := range a.tables {
		group.Go(func() error {
			if t.compact() == nil && encoder != nil && len(t.rows) > 0 {
				t.encoded = encoder.Encode(&TableBatch{Schema: t.schema, Rows: t.rows, SyncedAt: a.syncedAt, Bytes: bytesOf(t.rows)})
			}
			return nil
		})
	}
	_ = group.Wait() // None of them fails.
	return a
}

// syncedAt is a time as a plan has it.
func syncedAt(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
