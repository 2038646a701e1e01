package bus

import (
	"context"
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

func (b *Bus) lost(format string, args ...any) error {
	where := "data folder " + b.cfg.DataDir
	if !b.local() {
		where = "the NATS servers"
	}
	return &StreamLostError{
		Where: where, Reason: fmt.Sprintf(format, args...),
		stream: b.cfg.streamName(), bucket: b.cfg.bucketName(), folder: b.local(),
	}
}

// newStream is what is created for the frames.
func (b *Bus) newStream(epoch string) jetstream.StreamConfig {
	return b.updated(jetstream.StreamConfig{
		Name:        b.cfg.streamName(),
		Description: "row changes of the dbmazz pipeline " + b.cfg.Pipeline,
		Subjects:    []string{b.cfg.subject()},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		Storage:     jetstream.FileStorage,
		MaxMsgs:     -1, MaxConsumers: -1, MaxMsgsPerSubject: -1,
		Metadata: map[string]string{
			metaPipeline: b.cfg.Pipeline,
			metaEpoch:    epoch,
			metaFormat:   strconv.Itoa(cdc.FormatVersion),
		},
	})
}

// newBucket is what is created for the state: a bucket as the client library makes one,
// but with an epoch.
func (b *Bus) newBucket(epoch string) jetstream.StreamConfig {
	return b.updatedBucket(jetstream.StreamConfig{
		Name:        b.cfg.bucketStream(),
		Description: "state of the dbmazz pipeline " + b.cfg.Pipeline,
		Subjects:    []string{"$KV." + b.cfg.bucketName() + ".>"},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		Storage:     jetstream.FileStorage,
		MaxMsgs:     -1, MaxConsumers: -1, MaxMsgsPerSubject: 1, MaxBytes: -1, MaxMsgSize: -1,
		AllowRollup: true, DenyDelete: true, Duplicates: 2 * time.Minute,
		Metadata: map[string]string{metaPipeline: b.cfg.Pipeline, metaEpoch: epoch},
	})
}

// updatedBucket returns cfg with those settings that follow the configuration. A direct
// get may be answered by a replica that lags behind, so all reads go to the leader.
func (b *Bus) updatedBucket(cfg jetstream.StreamConfig) jetstream.StreamConfig {
	cfg.Replicas = orDefault(b.cfg.Replicas, max(1, cfg.Replicas))
	cfg.AllowDirect = false
	return cfg
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

func (b *Bus) checkBucket(cfg *jetstream.StreamConfig) error {
	switch {
	case cfg.Storage != jetstream.FileStorage || cfg.MaxAge != 0:
		return errors.New("it is not kept in files for ever")
	case cfg.Metadata[metaPipeline] != b.cfg.Pipeline || cfg.Metadata[metaEpoch] == "":
		return errors.New("its metadata have no pipeline and epoch")
	}
	return nil
}

// streamInfo reads the stream's state from its leader. If it is not the stream that was
// opened, the error is a *StreamLostError.
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
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, b.lost("stream %s of epoch %s is not there any more", b.cfg.streamName(), b.epoch)
	case err != nil:
		return nil, fmt.Errorf("read stream %s: %w", b.cfg.streamName(), err)
	case info.Config.Metadata[metaEpoch] != b.epoch:
		return nil, b.lost("stream %s of epoch %s was replaced by one of epoch %q", b.cfg.streamName(), b.epoch, info.Config.Metadata[metaEpoch])
	}
	return info, nil
}

// isClustered reports whether the stream belongs to a cluster of servers. One on its own
// also names a leader: itself.
func isClustered(info *jetstream.StreamInfo) bool {
	return info.Cluster != nil && info.Cluster.Name != ""
}
