package apply

import (
	"context"
	"fmt"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// LastBefore returns the position of the last change before the first transaction, from a
// position on, that was committed after a time. Transactions are in the order of their
// commits; their times are those of the source's clock and may step back. found is false
// if no transaction up to the end of the stream was committed after the time.
func LastBefore(ctx context.Context, stream Stream, from cdc.Position, at time.Time) (last cdc.Position, found bool, err error) {
	in := reader{stream: stream, schemas: map[cdc.Fingerprint]*cdc.Schema{}}
	if err := in.open(ctx, from); err != nil {
		return last, false, err
	}
	defer in.consumer.Close()
	last = from
	for in.consumer.Pending() > 0 {
		d, err := in.next(ctx)
		if err != nil {
			return last, false, err
		}
		records, err := d.frame.Reader(d.schemas)
		if err != nil {
			return last, false, fmt.Errorf("read message %d: %w", d.sequence, err)
		}
		for {
			var rec cdc.Record
			more, err := records.Next(&rec)
			if err != nil {
				return last, false, fmt.Errorf("read message %d: %w", d.sequence, err)
			}
			if !more {
				break
			}
			if time.UnixMicro(rec.CommitTime).After(at) && rec.Position.After(last) {
				return last, true, nil
			}
			if rec.Position.After(last) {
				last = rec.Position
			}
		}
	}
	return last, false, nil
}
