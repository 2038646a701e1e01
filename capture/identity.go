package capture

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// system is what IDENTIFY_SYSTEM says, and since when the timeline that is remembered
// has ended, if it has.
type system struct {
	id       string
	timeline int32
	head     cdc.LSN // of the WAL
	forked   cdc.LSN
}

// identify asks the server who it is. remembered may be nil.
func identify(ctx context.Context, conn *pgconn.PgConn, remembered *identity) (*system, error) {
	r, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("identify the server: %w", err)
	}
	s := &system{id: r.SystemID, timeline: r.Timeline, head: cdc.LSN(r.XLogPos)}
	if remembered == nil || remembered.SystemID != s.id || remembered.Timeline >= s.timeline {
		return s, nil
	}
	h, err := pglogrepl.TimelineHistory(ctx, conn, s.timeline)
	if err != nil {
		return nil, fmt.Errorf("read the history of timeline %d: %w", s.timeline, err)
	}
	s.forked, err = forkOf(remembered.Timeline, string(h.Content))
	return s, err
}

// forkOf finds where a timeline ended in a history file: lines of timeline, LSN, reason.
func forkOf(timeline int32, history string) (cdc.LSN, error) {
	for line := range strings.Lines(history) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != strconv.Itoa(int(timeline)) {
			continue
		}
		return cdc.ParseLSN(fields[1])
	}
	return 0, nil
}

// place is where slot, stream and sink are when a session starts.
type place struct {
	slot    *slot // nil if it does not exist
	tail    cdc.Tail
	applied cdc.LSN // zero if the sink has committed nothing
}

// have is up to where every change is in the stream or in the sink.
func (p *place) have() cdc.LSN { return max(p.tail.End, p.applied) }

const startOver = "start over: new SLOT_NAME, an empty stream (move dbmazz's data folder or bucket away), and a full copy of the tables into the sink"

// checkSystem refuses another server than the one that is remembered, before anything
// is changed on it.
func checkSystem(id *identity, srv *server, sys *system, p *place) error {
	if id == nil {
		if !p.tail.Empty {
			return &IdentityError{
				Reason:   fmt.Sprintf("the stream holds changes up to %s, but the record of the server that they came from is missing", p.tail.End),
				Recovery: "restore dbmazz's state bucket beside the stream, or " + startOver,
			}
		}
		return nil
	}
	const point = "point SOURCE_URL back to the right one, or, if the change is meant, "
	switch {
	case id.SystemID != sys.id:
		return &IdentityError{
			Reason:   fmt.Sprintf("the server is another one: its system identifier is %s, the stream was made from %s", sys.id, id.SystemID),
			Recovery: point + startOver,
		}
	case id.Database != srv.database || id.DatabaseOID != srv.databaseOID:
		return &IdentityError{
			Reason: fmt.Sprintf("the database is another one: %q (oid %d), the stream was made from %q (oid %d)",
				srv.database, srv.databaseOID, id.Database, id.DatabaseOID),
			Recovery: point + startOver,
		}
	}
	far := max(id.Confirmed, p.have())
	switch {
	case sys.timeline < id.Timeline:
		return &IdentityError{
			Reason:   fmt.Sprintf("the server is on timeline %d, the stream was made from timeline %d, which is younger", sys.timeline, id.Timeline),
			Recovery: "connect to the present primary, or " + startOver,
		}
	case sys.timeline > id.Timeline && (sys.forked == 0 || far > sys.forked):
		return &IdentityError{
			Reason: fmt.Sprintf("the server was promoted: it left timeline %d at %s, but changes up to %s were captured, some of which it does not have",
				id.Timeline, sys.forked, far),
			Recovery: "the sink holds changes that the new primary lost; " + startOver,
		}
	case !srv.standby && far > sys.head:
		return &IdentityError{
			Reason:   fmt.Sprintf("the server's WAL ends at %s, but changes up to %s were captured: it was restored from an older backup", sys.head, far),
			Recovery: "connect to the right server, or " + startOver,
		}
	}
	return nil
}

// checkSlot refuses a slot from which changes are missing.
func checkSlot(id *identity, p *place) error {
	if p.slot == nil {
		if id == nil {
			return nil
		}
		return &IdentityError{
			Reason: fmt.Sprintf("slot %q does not exist any more; changes after %s are lost to it", id.Slot, max(id.Confirmed, p.have())),
			Recovery: startOver +
				". If the server was failed over, connect to the server that has the slot, or use failover slots (PostgreSQL 17)",
		}
	}
	if why := p.slot.invalid(); why != "" {
		return &IdentityError{
			Reason:   fmt.Sprintf("slot %q cannot be read any more: %s; changes after %s are lost to it", p.slot.Name, why, p.have()),
			Recovery: fmt.Sprintf("drop it (SELECT pg_drop_replication_slot('%s')), then %s. Raise max_slot_wal_keep_size to prevent it", p.slot.Name, startOver),
		}
	}
	at := *p.slot.Confirmed
	have := p.have()
	if at <= have {
		return nil
	}
	switch {
	case id == nil && p.applied == 0:
		return nil // A slot that was made beforehand: its changes start here.
	case id != nil && at <= id.Confirmed && have >= id.Settled:
		return nil // We moved it, with nothing in between.
	}
	reason := fmt.Sprintf("slot %q stands at %s, but only changes up to %s are in the stream or in the sink: it was moved or created again by somebody else, or the sink was set back",
		p.slot.Name, at, have)
	return &IdentityError{
		Reason: reason,
		Recovery: "changes between the two are missing. If the sink or dbmazz's state was restored from a backup, restore the one that is newer; otherwise drop the slot and " +
			startOver,
	}
}
