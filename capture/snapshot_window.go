package capture

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// visibility is a snapshot of the server as pg_current_snapshot prints it: it tells which
// transactions a chunk has seen. Subtransactions are not in it, and the stream names the
// top-level transaction of every change, so the two fit.
//
// https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT
type visibility struct {
	// Every transaction below xmin has ended, none from xmax on has.
	xmin, xmax uint64
	running    []uint64 // those between that have not, in order
}

// parseVisibility reads the form xmin:xmax:xid,xid.
func parseVisibility(text string) (*visibility, error) {
	fields := strings.Split(text, ":")
	if len(fields) != 3 {
		return nil, fmt.Errorf("parse snapshot %q: want xmin:xmax:list", text)
	}
	numbers := fields[:2]
	if fields[2] != "" {
		numbers = append(slices.Clone(numbers), strings.Split(fields[2], ",")...)
	}
	all := make([]uint64, len(numbers))
	for i, n := range numbers {
		var err error
		if all[i], err = strconv.ParseUint(n, 10, 64); err != nil {
			return nil, fmt.Errorf("parse snapshot %q: %w", text, err)
		}
	}
	v := &visibility{xmin: all[0], xmax: all[1], running: all[2:]}
	slices.Sort(v.running)
	return v, nil
}

// widen gives the id of a transaction of the stream, which has 32 bits, those that are
// missing. It is the one next to the snapshot: transactions of which one could meet the
// other are less than 2^31 apart.
func (v *visibility) widen(xid uint32) uint64 {
	full := v.xmax&^(1<<32-1) | uint64(xid)
	switch {
	case full > v.xmax && full-v.xmax > 1<<31 && full >= 1<<32:
		full -= 1 << 32
	case full < v.xmax && v.xmax-full > 1<<31:
		full += 1 << 32
	}
	return full
}

// sees reports whether the changes of a committed transaction are in the snapshot.
func (v *visibility) sees(xid uint32) bool {
	full := v.widen(xid)
	if full < v.xmin {
		return true
	}
	if full >= v.xmax {
		return false
	}
	_, found := slices.BinarySearch(v.running, full)
	return !found
}

// covers reports whether a snapshot sees all that another one does, so that it is not older.
func (v *visibility) covers(o *visibility) bool {
	if v.xmax < o.xmax {
		return false
	}
	return !slices.ContainsFunc(v.running, func(xid uint64) bool {
		_, running := slices.BinarySearch(o.running, xid)
		return xid < o.xmax && !running
	})
}

// window notes the changes of one table that the reader passes while a chunk of it is
// read. See the comment of [desk] for what it is good for.
//
// Which of those changes the chunk has seen does not matter: those are the first ones of
// each row, and laying a row's last changes over it again changes nothing.
type window struct {
	// touched has, by key, the values that updates have left out of others (an update
	// does not repeat large values that it leaves as they are), or nil if the stream
	// says all about the key: it has a whole row or there is none any more.
	touched map[string]cdc.Tuple
	emptied bool // the table was truncated
	bytes   int
	// overflow tells that there were too many to be kept.
	overflow bool
	// relations are the descriptions of the table that came meanwhile, schemas those
	// of the changes.
	relations []*relation
	schemas   []*cdc.Schema
}

// windowBytes bounds what a window keeps. A chunk whose window is larger is read again.
const windowBytes = 64 << 20

// touchSize is about what a key costs besides its bytes and those of the values.
const touchSize = 100

// noted takes the schema of a change that is noted.
func (w *window) noted(s *cdc.Schema) {
	if n := len(w.schemas); n == 0 || w.schemas[n-1] != s {
		w.schemas = append(w.schemas, s)
	}
}

// settle notes that the stream says all about a key.
func (w *window) settle(key []byte) { w.put(key, nil) }

// patch notes an update that leaves values out. It keeps the row.
func (w *window) patch(key []byte, row cdc.Tuple) {
	before, found := w.touched[string(key)]
	switch {
	case found && before == nil:
	case found:
		w.put(key, overlay(nil, before, row))
	default:
		w.put(key, row)
	}
}

func (w *window) put(key []byte, row cdc.Tuple) {
	if w.overflow || w.emptied {
		return
	}
	if w.touched == nil {
		w.touched = map[string]cdc.Tuple{}
	}
	w.touched[string(key)] = row
	if w.bytes += touchSize + len(key) + len(row); w.bytes > windowBytes {
		w.touched, w.overflow = nil, true
	}
}

// empty notes a truncate. What has any of the keys afterwards came later, and whole.
func (w *window) empty() { w.touched, w.emptied = nil, true }

// untouched reports whether every row of the chunk is to be written as it was read.
func (w *window) untouched() bool { return len(w.touched) == 0 && !w.emptied }

// merge returns what to write for a row of the chunk, made in buf if it is not the row
// itself. ok is false if the row must not be written.
func (w *window) merge(key []byte, row, buf cdc.Tuple) (_ cdc.Tuple, ok bool) {
	if w.emptied {
		return nil, false
	}
	patch, found := w.touched[string(key)]
	switch {
	case !found:
		return row, true
	case patch == nil:
		return nil, false
	}
	return overlay(buf[:0], row, patch), true
}

// overlay appends the row with the values of the patch that are not Unchanged.
func overlay(buf, row, patch cdc.Tuple) cdc.Tuple {
	for {
		was, restRow, ok := row.Next()
		if !ok {
			return buf
		}
		is, restPatch, ok := patch.Next()
		if !ok || is.Kind == cdc.Unchanged {
			is = was
		}
		buf = buf.AppendValue(is)
		row, patch = restRow, restPatch
	}
}

// passed remembers the transactions whose commit the reader has passed, as long as no
// snapshot has shown that everybody sees them.
type passed struct {
	list []uint32
	base int // how many were dropped from the front
	lost bool
}

// passedMax bounds the list. When it is exceeded the next question starts anew.
const passedMax = 4 << 20

func (p *passed) add(xid uint32) {
	if len(p.list) >= passedMax {
		*p = passed{lost: true}
	}
	if !p.lost {
		p.list = append(p.list, xid)
	}
}

// mark names the present end of the list.
func (p *passed) mark() int { return p.base + len(p.list) }

// hidden reports whether there is a transaction before the mark that the snapshot does not
// see, although its commit is in the log. It also forgets, from the front, what the snapshot
// does see: so does every later one. An earlier one must not ask any more.
func (p *passed) hidden(v *visibility, mark int) bool {
	for i, x := range p.list[:min(max(mark-p.base, 0), len(p.list))] {
		if !v.sees(x) {
			p.drop(i)
			return true
		}
	}
	n := 0
	for n < len(p.list) && v.sees(p.list[n]) {
		n++
	}
	p.drop(n)
	return false
}

func (p *passed) drop(n int) {
	p.list = slices.Delete(p.list, 0, n)
	p.base += n
}
