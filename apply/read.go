package apply

import (
	"context"
	"fmt"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// reader takes messages from the stream and opens them.
type reader struct {
	stream   Stream
	consumer Consumer
	schemas  map[cdc.Fingerprint]*cdc.Schema
}

// delivered is an opened message.
type delivered struct {
	frame    cdc.Frame
	schemas  []*cdc.Schema
	sequence uint64
}

// open starts a consumer behind a position. It goes by position: when the end of the
// stream was lost and published again, a sequence is no longer what it was.
func (r *reader) open(ctx context.Context, position cdc.Position) error {
	after, err := r.stream.Locate(ctx, position)
	if err != nil {
		return fmt.Errorf("find %s in the stream: %w", position, err)
	}
	r.consumer, err = r.stream.Consumer(ctx, after)
	if err != nil {
		return fmt.Errorf("consume from message %d: %w", after+1, err)
	}
	return nil
}

// limit returns the limit for a position.
func (r *reader) limit(ctx context.Context, at cdc.Position) (limit, error) {
	sequence, err := r.stream.Locate(ctx, at)
	if err != nil {
		return limit{}, fmt.Errorf("find %s in the stream: %w", at, err)
	}
	return limit{set: true, at: at, sequence: sequence}, nil
}

// next waits for the next message, opens it and resolves its schemas.
func (r *reader) next(ctx context.Context) (delivered, error) {
	m, err := r.consumer.Next(ctx)
	if err != nil {
		return delivered{}, fmt.Errorf("read from the stream: %w", err)
	}
	d := delivered{sequence: m.Sequence}
	if d.frame, err = cdc.Open(m.Data); err != nil {
		return delivered{}, fmt.Errorf("read message %d: %w", m.Sequence, err)
	}
	for _, ref := range d.frame.Header.Schemas {
		schema, err := r.schema(ctx, ref)
		if err != nil {
			return delivered{}, fmt.Errorf("read message %d: %w", m.Sequence, err)
		}
		d.schemas = append(d.schemas, schema)
	}
	return d, nil
}

func (r *reader) schema(ctx context.Context, ref cdc.SchemaRef) (*cdc.Schema, error) {
	if known, ok := r.schemas[ref.Fingerprint]; ok {
		return known, nil
	}
	var schema *cdc.Schema
	var err error
	if ref.Definition != nil {
		schema, err = cdc.UnmarshalSchema(ref.Definition)
	} else {
		schema, err = r.stream.Schema(ctx, ref.Fingerprint)
	}
	if err != nil {
		return nil, fmt.Errorf("find schema %s: %w", ref.Fingerprint, err)
	}
	if schema.Fingerprint() != ref.Fingerprint {
		return nil, fmt.Errorf("schema %s of table %s has the fingerprint %s: %w", ref.Fingerprint, schema.Name(), schema.Fingerprint(), cdc.ErrCorrupt)
	}
	r.schemas[ref.Fingerprint] = schema
	return schema, nil
}
