package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Stream and bucket are created in steps, and each step leaves a mark, so that a
// creation that was cut off can be told from a loss:
//
//  1. the bucket, whose metadata hold the epoch that the stream will have;
//  2. the stream, whose metadata hold the same epoch;
//  3. the note: the epoch under a key of the bucket;
//  4. with the embedded server, the marker file beside its store.
//
// Only then anything is published. Each step is a creation that fails if there is
// something else already, so of two processes that start at once one makes the step and
// the other, after another look, goes on with what it finds.
//
// What can be known if both are gone from a NATS installation: nothing. It looks like
// the very first start, and both are made anew, with another epoch. Capture decides
// then: it finds a replication slot that it has no record of. If the slot was confirmed
// only for what the sink has applied, all that was lost is sent again from there.

// noteKey is the key of the bucket that says that its stream was completed.
const noteKey = "epoch"

// creationAttempts bounds how often another process may come first.
const creationAttempts = 20

// found is what there is of a pipeline.
type found struct {
	name   string
	marker *marker // nil if the files are not ours
	note   string  // empty if there is none

	stream, bucket           jetstream.Stream // nil if not there
	streamEpoch, bucketEpoch string
	last                     uint64 // sequence of the stream
}

// step is what to do next.
type step int

const (
	stepUse step = iota
	stepMakeBucket
	stepMakeStream
	stepMakeNote
)

// next decides what to do, or says in words what is lost.
func (f *found) next() (do step, lost string) {
	stream, bucket := f.stream != nil, f.bucket != nil
	switch {
	case f.marker != nil && !stream:
		return 0, "the server did not find stream " + f.name + " of epoch " + f.marker.Epoch
	case f.marker != nil && !bucket:
		return 0, "the server did not find the state bucket of stream " + f.name
	case f.marker != nil && f.marker.Epoch != f.streamEpoch:
		return 0, "stream " + f.name + " is of epoch " + f.streamEpoch + ", not of " + f.marker.Epoch
	case f.marker != nil && f.note == "":
		return 0, "the state bucket of stream " + f.name + " has lost its content"
	case !stream && f.note != "":
		return 0, "stream " + f.name + " of epoch " + f.note + ", which the state bucket belongs to, is not there"
	case stream && !bucket && f.last > 0:
		return 0, "the state bucket of stream " + f.name + " is not there, and with it how far the sink has got"
	case stream && bucket && f.streamEpoch != f.bucketEpoch:
		return 0, "stream " + f.name + " is of epoch " + f.streamEpoch + ", its state bucket of " + f.bucketEpoch
	case f.note != "" && f.note != f.bucketEpoch:
		return 0, "the state bucket of stream " + f.name + " is of epoch " + f.bucketEpoch + ", its content of " + f.note
	case stream && f.note == "" && f.last > 0:
		return 0, "the state bucket of stream " + f.name + " has lost its content, and with it how far the sink has got"
	case !bucket:
		return stepMakeBucket, ""
	case !stream:
		return stepMakeStream, ""
	case f.note == "":
		return stepMakeNote, ""
	}
	return stepUse, ""
}

// prepare makes sure that stream and bucket exist and fit.
func (b *Bus) prepare(ctx context.Context) error {
	var mark *marker
	if b.local() {
		var err error
		if mark, err = readMarker(b.cfg.DataDir); err != nil {
			return err
		}
		if mark != nil && mark.Stream != b.cfg.streamName() {
			return fmt.Errorf("data folder %s belongs to stream %s, not to %s: give each pipeline a data folder of its own",
				b.cfg.DataDir, mark.Stream, b.cfg.streamName())
		}
	}
	if err := b.requireRecovered(); err != nil {
		return err
	}
	suspicion := ""
	for range creationAttempts {
		f, err := b.look(ctx)
		if err != nil {
			return err
		}
		f.marker = mark
		do, lost := f.next()
		switch {
		case lost != "" && lost == suspicion:
			return b.lost("%s", lost)
		case lost != "":
			// Another process may have worked between the looks at the two.
			suspicion = lost
			continue
		case do == stepUse:
			return b.use(ctx, f)
		case b.cfg.Existing:
			return ErrNoStream
		}
		if err := b.make(ctx, f, do); err != nil {
			return err
		}
	}
	return fmt.Errorf("create stream %s: another process kept coming first", b.cfg.streamName())
}

// requireRecovered refuses to go on with a store that the embedded server could not
// read as a whole: it carries on without the stream, which must not be made anew.
func (b *Bus) requireRecovered() error {
	if b.server == nil {
		return nil
	}
	if problem := b.server.healthError(); problem != nil {
		return fmt.Errorf("recover the store in %s: %w; free disk space, check the disk and the log, and start again; "+
			"the files are untouched", b.cfg.DataDir, problem)
	}
	return nil
}

// look reads what there is.
func (b *Bus) look(ctx context.Context) (*found, error) {
	f := &found{name: b.cfg.streamName()}
	var err error
	if f.bucket, err = b.findStream(ctx, b.cfg.bucketStream()); err != nil {
		return nil, err
	}
	if f.bucket != nil {
		if err := b.lookInto(ctx, f); err != nil {
			return nil, err
		}
	}
	// Last, as it is there before the note is.
	if f.stream, err = b.findStream(ctx, b.cfg.streamName()); err != nil || f.stream == nil {
		return f, err
	}
	info := f.stream.CachedInfo()
	if err := b.checkStream(&info.Config); err != nil {
		return nil, unfit("stream", b.cfg.streamName(), err)
	}
	f.streamEpoch, f.last = info.Config.Metadata[metaEpoch], info.State.LastSeq
	return f, nil
}

// lookInto reads the bucket.
func (b *Bus) lookInto(ctx context.Context, f *found) error {
	info := f.bucket.CachedInfo()
	if err := b.checkBucket(&info.Config); err != nil {
		return unfit("state bucket", b.cfg.bucketName(), err)
	}
	f.bucketEpoch = info.Config.Metadata[metaEpoch]
	err := b.ask(ctx, func(ctx context.Context) error {
		m, err := f.bucket.GetLastMsgForSubject(ctx, "$KV."+b.cfg.bucketName()+"."+noteKey)
		if err == nil {
			f.note = string(m.Data)
		}
		return err
	})
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("read state bucket %s: %w", b.cfg.bucketName(), err)
	}
	return nil
}

// findStream returns nil if there is none of that name.
func (b *Bus) findStream(ctx context.Context, name string) (stream jetstream.Stream, err error) {
	err = b.ask(ctx, func(ctx context.Context) error {
		stream, err = b.js.Stream(ctx, name)
		return err
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", name, err)
	}
	return stream, nil
}

func unfit(kind, name string, err error) error {
	return fmt.Errorf("use %s %s: %w; it was changed or made by another program: put its configuration right, "+
		"or use another pipeline name", kind, name, err)
}

// make takes one step. That another process has taken it is no error: the next look
// shows what it made.
func (b *Bus) make(ctx context.Context, f *found, do step) error {
	err := b.ask(ctx, func(ctx context.Context) error {
		switch do {
		case stepMakeBucket:
			epoch := orDefault(f.streamEpoch, strings.ToLower(rand.Text()[:16]))
			_, err := b.js.CreateStream(ctx, b.newBucket(epoch))
			return err
		case stepMakeStream:
			_, err := b.js.CreateStream(ctx, b.newStream(f.bucketEpoch))
			return err
		default:
			_, err := b.js.Publish(ctx, "$KV."+b.cfg.bucketName()+"."+noteKey, []byte(f.bucketEpoch),
				jetstream.WithExpectLastSequencePerSubject(0))
			return err
		}
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) || isConflict(err) {
		return nil
	}
	if err != nil {
		return b.explained("create stream and state bucket of pipeline "+b.cfg.Pipeline, err)
	}
	return nil
}

// use takes what is complete, and adapts the settings that follow the configuration.
func (b *Bus) use(ctx context.Context, f *found) error {
	b.epoch, b.stream = f.streamEpoch, f.stream
	if !b.cfg.Existing {
		if err := b.adapt(ctx, f); err != nil {
			return err
		}
	}
	err := b.ask(ctx, func(ctx context.Context) error {
		var err error
		b.bucket, err = b.js.KeyValue(ctx, b.cfg.bucketName())
		return err
	})
	if err != nil {
		return fmt.Errorf("open state bucket %s: %w", b.cfg.bucketName(), err)
	}
	if b.server != nil && f.marker == nil {
		return writeMarker(b.cfg.DataDir, marker{Stream: b.cfg.streamName(), Epoch: b.epoch})
	}
	return nil
}

// adapt updates what differs from the configuration.
func (b *Bus) adapt(ctx context.Context, f *found) error {
	for _, s := range []struct {
		stream *jetstream.Stream
		wanted func(jetstream.StreamConfig) jetstream.StreamConfig
	}{{&f.bucket, b.updatedBucket}, {&b.stream, b.updated}} {
		have := (*s.stream).CachedInfo().Config
		want := s.wanted(have)
		if streamEqual(&have, &want) {
			continue
		}
		err := b.ask(ctx, func(ctx context.Context) error {
			updated, err := b.js.UpdateStream(ctx, want)
			if err == nil {
				*s.stream = updated
			}
			return err
		})
		if err != nil {
			return b.explained("update stream "+have.Name, err)
		}
	}
	return nil
}

// explained adds what to do to refusals whose reason is in the configuration.
func (b *Bus) explained(doing string, err error) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	hint := ""
	switch api.ErrorCode {
	case codeReplicasNotSupported:
		hint = fmt.Sprintf("; the server is not part of a cluster, so it cannot keep %d replicas: set BUS_REPLICAS=1, or BUS_URL to a cluster", b.cfg.Replicas)
	case codeNoPeers:
		hint = fmt.Sprintf("; the cluster has no %d servers with JetStream and enough room for %d bytes: start them, or lower BUS_REPLICAS or BUS_MAX_BYTES",
			max(1, b.cfg.Replicas), b.cfg.MaxBytes)
	case codeStorageExceeded, codeAccountExceeded, codeInsufficientResources:
		hint = fmt.Sprintf("; the server or the account does not grant %d bytes: raise its limit, or lower BUS_MAX_BYTES", b.cfg.MaxBytes)
	}
	return fmt.Errorf("%s: %w%s", doing, err, hint)
}

// Codes of refusals that the client library does not name.
const (
	codeNoPeers              = 10005
	codeReplicasNotSupported = 10074
)
