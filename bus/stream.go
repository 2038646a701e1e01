package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Keys of the stream's metadata.
const (
	metaPipeline = "dbmazz_pipeline"
	metaEpoch    = "dbmazz_epoch"
	metaFormat   = "dbmazz_format"
)

// prepare makes sure that stream and bucket exist and fit.
func (b *Bus) prepare(ctx context.Context) error {
	var mark *marker
	if b.server != nil {
		var err error
		if mark, err = readMarker(b.cfg.DataDir); err != nil {
			return err
		}
		if err := b.requireRecovered(); err != nil {
			return err
		}
	}
	if err := b.prepareStream(ctx, mark); err != nil {
		return err
	}
	if err := b.prepareBucket(ctx, mark); err != nil {
		return err
	}
	if b.server != nil && mark == nil {
		return writeMarker(b.cfg.DataDir, marker{Stream: b.cfg.streamName(), Epoch: b.epoch})
	}
	return nil
}

// requireRecovered refuses to go on with a store that the server could not read as a
// whole: it carries on without the stream, which must not be made anew.
func (b *Bus) requireRecovered() error {
	if problem := b.server.healthError(); problem != nil {
		return fmt.Errorf("recover the store in %s: %w; free disk space, check the disk and the log, and start again; "+
			"the files are untouched", b.cfg.DataDir, problem)
	}
	return nil
}

func (b *Bus) lost(format string, args ...any) error {
	return &StreamLostError{Folder: b.cfg.DataDir, Marker: markerName, Reason: fmt.Sprintf(format, args...)}
}

func (b *Bus) prepareStream(ctx context.Context, mark *marker) error {
	name := b.cfg.streamName()
	if mark != nil && mark.Stream != name {
		return fmt.Errorf("data folder %s belongs to stream %s, not to %s: give each pipeline a data folder of its own",
			b.cfg.DataDir, mark.Stream, name)
	}
	stream, err := b.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if mark != nil {
			return b.lost("the server did not find stream %s of epoch %s", name, mark.Epoch)
		}
		return b.createStream(ctx)
	}
	if err != nil {
		return fmt.Errorf("read stream %s: %w", name, err)
	}
	have := stream.CachedInfo().Config
	if err := b.checkStream(&have); err != nil {
		return fmt.Errorf("use stream %s: %w; it was changed or made by another program: put its configuration right, "+
			"or use another pipeline name", name, err)
	}
	b.epoch = have.Metadata[metaEpoch]
	if mark != nil && mark.Epoch != b.epoch {
		return b.lost("stream %s is of epoch %s, not of %s", name, b.epoch, mark.Epoch)
	}
	b.stream = stream
	want := b.updated(have)
	if streamEqual(&have, &want) {
		return nil
	}
	if b.stream, err = b.js.UpdateStream(ctx, want); err != nil {
		return fmt.Errorf("update stream %s: %w", name, err)
	}
	return nil
}

func (b *Bus) createStream(ctx context.Context) error {
	b.epoch = strings.ToLower(rand.Text()[:16])
	cfg := jetstream.StreamConfig{
		Name:        b.cfg.streamName(),
		Description: "row changes of the dbmazz pipeline " + b.cfg.Pipeline,
		Subjects:    []string{b.cfg.subject()},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		Storage:     jetstream.FileStorage,
		Replicas:    max(1, b.cfg.Replicas),
		MaxMsgs:     -1, MaxConsumers: -1, MaxMsgsPerSubject: -1,
		Metadata: map[string]string{
			metaPipeline: b.cfg.Pipeline,
			metaEpoch:    b.epoch,
			metaFormat:   strconv.Itoa(cdc.FormatVersion),
		},
	}
	stream, err := b.js.CreateStream(ctx, b.updated(cfg))
	if err != nil {
		return fmt.Errorf("create stream %s: %w", cfg.Name, err)
	}
	b.stream = stream
	return nil
}

// updated returns cfg with those settings that follow the configuration.
func (b *Bus) updated(cfg jetstream.StreamConfig) jetstream.StreamConfig {
	cfg.Metadata = maps.Clone(cfg.Metadata)
	cfg.MaxBytes = b.cfg.MaxBytes
	cfg.MaxMsgSize = int32(min(b.nc.MaxPayload(), math.MaxInt32)) //nolint:gosec // Bounded.
	cfg.Replicas = orDefault(b.cfg.Replicas, max(1, cfg.Replicas))
	// A direct get may be answered by a follower that lags behind.
	cfg.AllowDirect = cfg.Replicas == 1
	// The expected last id does the work; the window of known ids is only memory.
	cfg.Duplicates = time.Second
	return cfg
}

func streamEqual(a, b *jetstream.StreamConfig) bool {
	return a.MaxBytes == b.MaxBytes && a.MaxMsgSize == b.MaxMsgSize && a.Replicas == b.Replicas &&
		a.AllowDirect == b.AllowDirect && a.Duplicates == b.Duplicates
}

// checkStream refuses what would break a promise.
func (b *Bus) checkStream(cfg *jetstream.StreamConfig) error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(cfg.Metadata[metaPipeline] == b.cfg.Pipeline, "its metadata names the pipeline %q", cfg.Metadata[metaPipeline])
	check(cfg.Metadata[metaEpoch] != "", "its metadata has no epoch")
	check(cfg.Metadata[metaFormat] == strconv.Itoa(cdc.FormatVersion), "its frames have format version %q, this program uses %d",
		cfg.Metadata[metaFormat], cdc.FormatVersion)
	check(cfg.Storage == jetstream.FileStorage, "it is kept in %s, not in files", strings.ToLower(cfg.Storage.String()))
	check(cfg.Retention == jetstream.LimitsPolicy, "its retention is %s, not limits", strings.ToLower(cfg.Retention.String()))
	check(cfg.Discard == jetstream.DiscardNew, "it discards old messages when it is full")
	check(cfg.MaxAge == 0, "it discards messages after %s", cfg.MaxAge)
	check(cfg.MaxMsgsPerSubject <= 0, "it keeps only %d messages", cfg.MaxMsgsPerSubject)
	check(cfg.PersistMode == jetstream.DefaultPersistMode, "it acknowledges messages before they are written")
	check(!cfg.NoAck, "it does not acknowledge messages")
	check(!cfg.Sealed, "it is sealed")
	check(!cfg.DenyPurge, "it denies purging")
	check(cfg.Mirror == nil && len(cfg.Sources) == 0, "it copies another stream")
	check(cfg.SubjectTransform == nil && cfg.RePublish == nil, "it transforms or republishes its subjects")
	check(slices.Equal(cfg.Subjects, []string{b.cfg.subject()}), "its subjects are %s, not %s", strings.Join(cfg.Subjects, ","), b.cfg.subject())
	return errors.Join(errs...)
}

func (b *Bus) prepareBucket(ctx context.Context, mark *marker) error {
	name := b.cfg.bucketName()
	bucket, err := b.js.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		if mark != nil {
			return b.lost("the server did not find the state bucket %s", name)
		}
		bucket, err = b.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: name, Description: "state of the dbmazz pipeline " + b.cfg.Pipeline,
			History: 1, Storage: jetstream.FileStorage, Replicas: max(1, b.cfg.Replicas),
		})
	}
	if err != nil {
		return fmt.Errorf("open state bucket %s: %w", name, err)
	}
	status, err := bucket.Status(ctx)
	if err != nil {
		return fmt.Errorf("read state bucket %s: %w", name, err)
	}
	if cfg := status.Config(); cfg.Storage != jetstream.FileStorage || cfg.TTL != 0 {
		return fmt.Errorf("use state bucket %s: it is not kept in files for ever: delete it, or use another pipeline name", name)
	}
	b.bucket = bucket
	return nil
}

// streamInfo reads the stream's state from its leader.
func (b *Bus) streamInfo(ctx context.Context) (*jetstream.StreamInfo, error) {
	var info *jetstream.StreamInfo
	err := b.ask(ctx, func(ctx context.Context) error {
		// A handle of its own: Info writes to the handle's cache.
		stream, err := b.js.Stream(ctx, b.cfg.streamName())
		if err == nil {
			info = stream.CachedInfo()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", b.cfg.streamName(), err)
	}
	return info, nil
}
