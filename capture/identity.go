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
	name    string // of the slot
	slot    *slot  // nil if it does not exist
	epoch   string // of the stream
	tail    cdc.Tail
	applied cdc.LSN // zero if the sink has committed nothing
	// appends are the tables without a key, fresh tells that this process made the
	// slot.
	appends []Table
	fresh   bool
}

// have is up to where every change is in the stream or in the sink.
func (p *place) have() cdc.LSN { return max(p.tail.End, p.applied) }

// reached is how far the WAL of a server must go that has all that was captured.
func (p *place) reached(id *identity) cdc.LSN {
	far := max(id.Confirmed, p.have())
	if !p.tail.Empty {
		// A transaction that is in the stream in part has committed too: its
		// commit record begins here.
		far = max(far, p.tail.Last.Commit+1)
	}
	return far
}

// from is what the next frame continues: the last one, unless the end of the stream was
// lost after the sink had applied it and the slot does not repeat it any more. Then the
// next frame says that it begins at the slot. The sink needs nothing in between, and who
// reads the history again sees that it has a hole.
func (p *place) from() (last cdc.Position, end cdc.LSN) {
	at := *p.slot.Confirmed
	if p.tail.Empty || p.tailLost() && at > max(p.tail.End, p.tail.Last.Commit) {
		// A transaction may commit at the very place, and rows of a snapshot may be
		// written before it comes.
		return cdc.Position{Commit: at - 1}, at
	}
	return p.tail.Last, p.tail.End
}

// tailLost tells that the sink has applied what is not in the stream any more.
func (p *place) tailLost() bool { return p.applied > p.tail.End }

// witness tells another history of the same server from ours. A server that was restored
// from an older backup grows past what was captured sooner or later, and its positions say
// nothing then. But the slot repeats every transaction since its confirmed LSN, so the one
// at the end of the stream must come again, unless it is confirmed already.
type witness struct {
	slot string
	want cdc.LSN // its commit LSN, zero when none is due
}

func newWitness(p *place) witness {
	if p.tail.Empty || *p.slot.Confirmed > p.tail.Last.Commit {
		return witness{}
	}
	return witness{slot: p.name, want: p.tail.Last.Commit}
}

// begin takes the commit LSN of each transaction, in their order.
func (w *witness) begin(commit cdc.LSN) error {
	switch {
	case w.want == 0 || commit < w.want:
		return nil
	case commit == w.want:
		w.want = 0
		return nil
	}
	return &IdentityError{
		Reason: fmt.Sprintf("the server does not have the transaction that committed at %s, which is in the stream, but goes on at %s: it was restored from an older backup and has been written to since",
			w.want, commit),
		Recovery: "connect SOURCE_URL to the right server, or, if the restored one is to be used, " + startOver(w.slot),
	}
}

// startOver is the last resort of every recovery; docs/operations.md has it in full.
func startOver(slot string) string {
	return fmt.Sprintf("start over: stop dbmazz; drop the slot if it exists (SELECT pg_drop_replication_slot('%s')); move dbmazz's data folder away (on an external bus, delete the pipeline's stream and state bucket); empty the target tables; start dbmazz; copy the rows that exist", slot)
}

// checkSystem refuses another server than the one that is remembered, before anything
// is changed on it.
func checkSystem(id *identity, srv *server, sys *system, p *place) error {
	if id == nil {
		return checkForgotten(p)
	}
	const point = "point SOURCE_URL back to the right one, or, if the change is meant, "
	switch {
	case id.SystemID != sys.id:
		return &IdentityError{
			Reason:   fmt.Sprintf("the server is another one: its system identifier is %s, the stream was made from %s", sys.id, id.SystemID),
			Recovery: point + startOver(p.name),
		}
	case id.Database != srv.database || id.DatabaseOID != srv.databaseOID:
		return &IdentityError{
			Reason: fmt.Sprintf("the database is another one: %q (oid %d), the stream was made from %q (oid %d)",
				srv.database, srv.databaseOID, id.Database, id.DatabaseOID),
			Recovery: point + startOver(p.name),
		}
	}
	far := p.reached(id)
	switch {
	case sys.timeline < id.Timeline:
		return &IdentityError{
			Reason:   fmt.Sprintf("the server is on timeline %d, the stream was made from timeline %d, which is younger", sys.timeline, id.Timeline),
			Recovery: "point SOURCE_URL to the present primary (list all hosts and add target_session_attrs=read-write to find it), or " + startOver(p.name),
		}
	case sys.timeline > id.Timeline && (sys.forked == 0 || far > sys.forked):
		return &IdentityError{
			Reason: fmt.Sprintf("the server was promoted: it left timeline %d at %s, but changes up to %s were captured, some of which it does not have",
				id.Timeline, sys.forked, far),
			Recovery: "the sink holds changes that the new primary lost; " + startOver(p.name) +
				". To prevent it, name the standby's slot in synchronized_standby_slots (PostgreSQL 17), or in synchronous_standby_names",
		}
	case !srv.standby && far > sys.head:
		return &IdentityError{
			Reason:   fmt.Sprintf("the server's WAL ends at %s, but changes up to %s were captured: it was restored from an older backup", sys.head, far),
			Recovery: "connect SOURCE_URL to the right server, or, if the restored one is to be used, " + startOver(p.name),
		}
	}
	return checkStream(id, p)
}

// checkForgotten refuses a stream or checkpoint without the record of its server.
func checkForgotten(p *place) error {
	const restore = "restore dbmazz's state bucket together with the stream, or "
	switch {
	case !p.tail.Empty:
		return &IdentityError{
			Reason:   fmt.Sprintf("the stream holds changes up to %s, but the record of the server that they came from is missing", p.tail.End),
			Recovery: restore + startOver(p.name),
		}
	case p.applied > 0:
		return &IdentityError{
			Reason:   fmt.Sprintf("the sink has applied changes up to %s, but the record of the server that they came from is missing", p.applied),
			Recovery: restore + startOver(p.name),
		}
	}
	return nil
}

// checkStream refuses a stream that is not the one that was written to. An empty one in
// its place is no harm as long as the slot repeats what the sink lacks; see checkSlot.
func checkStream(id *identity, p *place) error {
	if p.tail.Empty || id.Epoch == p.epoch {
		return nil
	}
	return &IdentityError{
		Reason: fmt.Sprintf("the stream is another one: it is of epoch %s and holds changes up to %s, this pipeline wrote to the stream of epoch %s",
			p.epoch, p.tail.End, id.Epoch),
		Recovery: "stream and state bucket are of different ages, or two pipelines have one name: restore both from the same backup, give the pipeline a name of its own, or " + startOver(p.name),
	}
}

// checkSlot refuses a slot from which changes are missing.
func checkSlot(id *identity, p *place) error {
	if p.slot == nil {
		if id == nil {
			return nil
		}
		return &IdentityError{
			Reason: fmt.Sprintf("slot %q does not exist any more; changes after %s are lost to it", id.Slot, max(id.Confirmed, p.have())),
			Recovery: "if the server was failed over or SOURCE_URL changed, connect to the server that has the slot; otherwise " + startOver(p.name) +
				". A failover slot (PostgreSQL 17, sync_replication_slots on the standby) survives a promotion",
		}
	}
	if why, remedy := p.slot.invalid(); why != "" {
		return &IdentityError{
			Reason:   fmt.Sprintf("slot %q cannot be read any more: %s; changes after %s are lost to it", p.slot.Name, why, p.have()),
			Recovery: fmt.Sprintf("%s. To prevent it, %s", startOver(p.name), remedy),
		}
	}
	at := *p.slot.Confirmed
	have := p.have()
	switch {
	case id != nil && p.applied == 0 && at <= have && (id.Settled > 0 || at > id.Confirmed):
		// What was confirmed had been applied, so there was a checkpoint.
		return &IdentityError{
			Reason: fmt.Sprintf("slot %q was confirmed up to %s because the sink had applied as much, but the sink's checkpoint is missing: the state bucket was lost or emptied",
				p.slot.Name, max(id.Settled, at)),
			Recovery: "restore dbmazz's state bucket together with the stream; otherwise every change would be applied again to tables that hold them. Or " + startOver(p.name),
		}
	case at <= have:
		return nil
	case id == nil && p.applied == 0:
		return checkUnknownSlot(p)
	case id != nil && at <= id.Confirmed && have >= id.Settled:
		return nil // We moved it, with nothing in between.
	}
	reason := fmt.Sprintf("slot %q stands at %s, but only changes up to %s are in the stream or in the sink: it was moved or created again by somebody else, or the sink was set back",
		p.slot.Name, at, have)
	return &IdentityError{
		Reason: reason,
		Recovery: "changes between the two are missing. If the sink or dbmazz's state was restored from a backup, restore the one that is newer; otherwise " +
			startOver(p.name),
	}
}

// checkUnknownSlot looks at a slot of which nothing is known. It was made beforehand, and
// its changes start here; or it was used and stream and state are all gone. Then it was
// only confirmed for what the sink has, and repeats some of it. By key that changes
// nothing, but without one the sink would get it twice.
func checkUnknownSlot(p *place) error {
	if p.fresh || len(p.appends) == 0 {
		return nil
	}
	return &IdentityError{
		Reason: fmt.Sprintf("slot %q exists and stands at %s, but nothing is known about an earlier use of it; if it was used, the sink may hold changes that it would repeat, and table %q has no key to know them by",
			p.name, p.slot.Confirmed, p.appends[0]),
		Recovery: fmt.Sprintf("restore dbmazz's data folder or state bucket; if the slot was never used, drop it and dbmazz creates it (SELECT pg_drop_replication_slot('%s')); otherwise %s",
			p.name, startOver(p.name)),
	}
}
