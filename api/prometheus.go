package api

import "github.com/prometheus/client_golang/prometheus"

// The names of the metrics. Those ending in _total count since the process started.
const (
	MetricEventsProcessed   = "dbmazz_events_processed_total"
	MetricEventsPerSecond   = "dbmazz_events_per_second"
	MetricReplicationLagMs  = "dbmazz_replication_lag_ms"
	MetricBatchesSent       = "dbmazz_batches_sent_total"
	MetricPendingEvents     = "dbmazz_pending_events"
	MetricRowsCaptured      = "dbmazz_rows_captured_total"
	MetricTransactions      = "dbmazz_transactions_captured_total"
	MetricBytesCaptured     = "dbmazz_bytes_captured_total"
	MetricBytesApplied      = "dbmazz_bytes_applied_total"
	MetricLoadsFailed       = "dbmazz_loads_failed_total"
	MetricLoadsRetried      = "dbmazz_loads_retried_total"
	MetricValuesNulled      = "dbmazz_values_nulled_total"
	MetricLagBytes          = "dbmazz_lag_bytes"
	MetricLagSeconds        = "dbmazz_replication_lag_seconds"
	MetricEndToEndLag       = "dbmazz_end_to_end_lag_seconds"
	MetricServerLSN         = "dbmazz_server_lsn"
	MetricReceivedLSN       = "dbmazz_received_lsn"
	MetricConfirmedLSN      = "dbmazz_confirmed_lsn"
	MetricQueueMessages     = "dbmazz_queue_messages"
	MetricQueueBytes        = "dbmazz_queue_bytes"
	MetricQueueBytesMax     = "dbmazz_queue_bytes_max"
	MetricQueuePending      = "dbmazz_queue_pending_messages"
	MetricQueuePendingBytes = "dbmazz_queue_pending_bytes"
	MetricQueueOldest       = "dbmazz_queue_oldest_age_seconds"
	MetricReady             = "dbmazz_ready"
	MetricState             = "dbmazz_state"
	MetricDeadLetters       = "dbmazz_dead_letters"
	MetricStageState        = "dbmazz_stage_state"
	MetricStageRestarts     = "dbmazz_stage_restarts_total"
	MetricStageActivity     = "dbmazz_stage_last_activity_timestamp_seconds"
	MetricMemoryLimit       = "dbmazz_memory_limit_bytes"
	MetricMemoryResident    = "dbmazz_memory_resident_bytes"
	MetricFlushSize         = "dbmazz_flush_size_rows"
	MetricFlushInterval     = "dbmazz_flush_interval_seconds"
	MetricBuildInfo         = "dbmazz_build_info"

	MetricSnapshotActive             = "dbmazz_snapshot_active"
	MetricSnapshotPaused             = "dbmazz_snapshot_paused"
	MetricSnapshotRowsPerSecond      = "dbmazz_snapshot_rows_per_second"
	MetricSnapshotTimeLeft           = "dbmazz_snapshot_time_left_seconds"
	MetricSnapshotTableRows          = "dbmazz_snapshot_table_rows"
	MetricSnapshotTableRowsEstimated = "dbmazz_snapshot_table_rows_estimated"
	MetricSnapshotTableBytes         = "dbmazz_snapshot_table_bytes"
	MetricSnapshotTableChunks        = "dbmazz_snapshot_table_chunks"
	MetricSnapshotTableState         = "dbmazz_snapshot_table_state"
)

// series is a metric without labels.
type series struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(s *sample, r rates) float64
}

func counter(name, help string, value func(c *Counters) uint64) series {
	return series{
		desc:  prometheus.NewDesc(name, help, nil, nil),
		kind:  prometheus.CounterValue,
		value: func(s *sample, _ rates) float64 { return float64(value(&s.status.Counters)) },
	}
}

func gauge(name, help string, value func(st *Status) float64) series {
	return series{
		desc:  prometheus.NewDesc(name, help, nil, nil),
		kind:  prometheus.GaugeValue,
		value: func(s *sample, _ rates) float64 { return value(&s.status) },
	}
}

var allSeries = []series{
	counter(MetricEventsProcessed, "Row changes applied to the sink.", func(c *Counters) uint64 { return c.RowsApplied }),
	counter(MetricBatchesSent, "Batches applied to the sink.", func(c *Counters) uint64 { return c.BatchesApplied }),
	counter(MetricRowsCaptured, "Row changes captured from the source.", func(c *Counters) uint64 { return c.RowsCaptured }),
	counter(MetricTransactions, "Transactions captured from the source.", func(c *Counters) uint64 { return c.TransactionsCaptured }),
	counter(MetricBytesCaptured, "Bytes received from the source.", func(c *Counters) uint64 { return c.BytesCaptured }),
	counter(MetricBytesApplied, "Bytes sent to the sink in acknowledged loads.", func(c *Counters) uint64 { return c.BytesApplied }),
	counter(MetricLoadsFailed, "Loads that failed for good.", func(c *Counters) uint64 { return c.LoadsFailed }),
	counter(MetricLoadsRetried, "Loads that were tried again.", func(c *Counters) uint64 { return c.LoadsRetried }),
	counter(MetricValuesNulled, "Values that did not fit their column and became NULL, as SINK_TYPE_OVERRIDES allows.",
		func(c *Counters) uint64 { return c.ValuesNulled }),
	gauge(MetricReplicationLagMs, "Age of the oldest committed change that is not in the sink, in milliseconds.",
		func(st *Status) float64 { return float64(milliseconds(st.Lag)) }),
	gauge(MetricLagSeconds, "Age of the oldest committed change that is not in the sink.",
		func(st *Status) float64 { return max(0, st.Lag.Seconds()) }),
	gauge(MetricPendingEvents, "Row changes in the queue that the sink has not acknowledged.",
		func(st *Status) float64 { return float64(st.Queue.PendingRows) }),
	gauge(MetricLagBytes, "Bytes of log between the head of the source and the confirmed LSN.",
		func(st *Status) float64 { return float64(st.lagBytes()) }),
	gauge(MetricServerLSN, "Head of the source's log.", func(st *Status) float64 { return float64(st.ServerLSN) }),
	gauge(MetricReceivedLSN, "LSN received from the source.", func(st *Status) float64 { return float64(st.ReceivedLSN) }),
	gauge(MetricConfirmedLSN, "LSN confirmed to the source.", func(st *Status) float64 { return float64(st.ConfirmedLSN) }),
	gauge(MetricQueueMessages, "Messages stored in the queue.", func(st *Status) float64 { return float64(st.Queue.Messages) }),
	gauge(MetricQueueBytes, "Bytes stored in the queue.", func(st *Status) float64 { return float64(st.Queue.Bytes) }),
	gauge(MetricQueueBytesMax, "Bytes at which capture waits for room in the queue.",
		func(st *Status) float64 { return float64(st.Queue.BytesMax) }),
	gauge(MetricQueuePending, "Messages that the sink has not acknowledged.",
		func(st *Status) float64 { return float64(st.Queue.PendingMessages) }),
	gauge(MetricQueuePendingBytes, "Bytes that the sink has not acknowledged.",
		func(st *Status) float64 { return float64(st.Queue.PendingBytes) }),
	gauge(MetricQueueOldest, "Age of the oldest message that the sink has not acknowledged.",
		func(st *Status) float64 { return max(0, st.Queue.OldestAge.Seconds()) }),
	gauge(MetricDeadLetters, "Rows that were set aside because the sink could not take them.",
		func(st *Status) float64 { return float64(st.DeadLetters) }),
	gauge(MetricSnapshotActive, "1 while existing rows are being copied.", func(st *Status) float64 { return truth(st.Snapshot.Active) }),
	gauge(MetricSnapshotPaused, "1 while the copy of existing rows is paused.", func(st *Status) float64 { return truth(st.Snapshot.Paused) }),
	gauge(MetricSnapshotRowsPerSecond, "Existing rows copied per second by the tables that are being copied.",
		func(st *Status) float64 { return st.Snapshot.sums().rowsPerSecond }),
	gauge(MetricSnapshotTimeLeft, "Time that the copy of existing rows takes at the present speed, 0 when that is not known.",
		func(st *Status) float64 { return st.Snapshot.sums().left.Seconds() }),
	gauge(MetricReady, "1 when both stages run.", func(st *Status) float64 { return truth(st.Ready()) }),
	gauge(MetricMemoryLimit, "Memory that the process may use, 0 when no limit is set.",
		func(st *Status) float64 { return float64(st.MemoryLimit) }),
	gauge(MetricFlushSize, "Rows per batch in force.", func(st *Status) float64 { return float64(st.Settings.FlushSize) }),
	gauge(MetricFlushInterval, "Longest wait for a batch to fill in force.",
		func(st *Status) float64 { return st.Settings.FlushInterval.Seconds() }),
	{
		desc:  prometheus.NewDesc(MetricMemoryResident, "Resident memory of the process.", nil, nil),
		kind:  prometheus.GaugeValue,
		value: func(s *sample, _ rates) float64 { return float64(s.rss) },
	},
	{
		desc:  prometheus.NewDesc(MetricEventsPerSecond, "Row changes applied per second, lately.", nil, nil),
		kind:  prometheus.GaugeValue,
		value: func(_ *sample, r rates) float64 { return r.rowsApplied },
	},
}

var (
	stateDesc      = prometheus.NewDesc(MetricState, "1 for the state of the pipeline.", []string{"state"}, nil)
	stageStateDesc = prometheus.NewDesc(MetricStageState, "1 for the state of the stage.", []string{"stage", "state"}, nil)
	restartsDesc   = prometheus.NewDesc(MetricStageRestarts, "Restarts of the stage after errors.", []string{"stage"}, nil)
	activityDesc   = prometheus.NewDesc(MetricStageActivity, "Last progress of the stage, or sign of life of its peer.",
		[]string{"stage"}, nil)
	endToEndDesc = prometheus.NewDesc(MetricEndToEndLag,
		"Time from commit at the source to commit at the sink over the last minute.", []string{"quantile"}, nil)
	copyRowsDesc      = prometheus.NewDesc(MetricSnapshotTableRows, "Existing rows of the table that are copied.", []string{"table"}, nil)
	copyEstimatedDesc = prometheus.NewDesc(MetricSnapshotTableRowsEstimated, "Rows of the table by the server's statistics.", []string{"table"}, nil)
	copyBytesDesc     = prometheus.NewDesc(MetricSnapshotTableBytes, "Bytes of existing rows of the table that are copied.", []string{"table"}, nil)
	copyChunksDesc    = prometheus.NewDesc(MetricSnapshotTableChunks, "Chunks of the table that are copied.", []string{"table"}, nil)
	copyStateDesc     = prometheus.NewDesc(MetricSnapshotTableState, "1 for the state of the copy of the table.", []string{"table", "state"}, nil)

	buildDesc = prometheus.NewDesc(MetricBuildInfo, "1 for the version that runs.", []string{"version"}, nil)
)

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// collector holds one sample, so that all figures of a scrape fit together.
type collector struct {
	now     sample
	lately  rates
	version string
}

// Describe sends every metric.
func (*collector) Describe(out chan<- *prometheus.Desc) {
	for i := range allSeries {
		out <- allSeries[i].desc
	}
	for _, desc := range []*prometheus.Desc{stateDesc, stageStateDesc, restartsDesc, activityDesc, endToEndDesc, copyRowsDesc, copyEstimatedDesc, copyBytesDesc, copyChunksDesc, copyStateDesc, buildDesc} {
		out <- desc
	}
}

// Collect sends every value.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	for i := range allSeries {
		s := &allSeries[i]
		out <- prometheus.MustNewConstMetric(s.desc, s.kind, s.value(&c.now, c.lately))
	}
	st := &c.now.status
	labelled := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, kind, value, labels...)
	}
	for state := StateRunning; state <= StateStopped; state++ {
		labelled(stateDesc, prometheus.GaugeValue, truth(st.State == state), state.String())
	}
	for name, work := range map[string]*Work{"capture": &st.Capture, "apply": &st.Apply} {
		for state := range workNames {
			labelled(stageStateDesc, prometheus.GaugeValue, truth(int(work.State) == state), name, workNames[state])
		}
		labelled(restartsDesc, prometheus.CounterValue, float64(work.Restarts), name)
		labelled(activityDesc, prometheus.GaugeValue, float64(unixMilliseconds(work.LastActivity))/1000, name)
	}
	for i := range st.Snapshot.Tables {
		t := &st.Snapshot.Tables[i]
		labelled(copyRowsDesc, prometheus.GaugeValue, float64(t.Rows), t.Table)
		labelled(copyEstimatedDesc, prometheus.GaugeValue, float64(t.RowsEstimated), t.Table)
		labelled(copyBytesDesc, prometheus.GaugeValue, float64(t.Bytes), t.Table)
		labelled(copyChunksDesc, prometheus.GaugeValue, float64(t.ChunksDone), t.Table)
		labelled(copyStateDesc, prometheus.GaugeValue, 1, t.Table, t.State)
	}
	labelled(endToEndDesc, prometheus.GaugeValue, max(0, st.LagP50.Seconds()), "0.5")
	labelled(endToEndDesc, prometheus.GaugeValue, max(0, st.LagP99.Seconds()), "0.99")
	labelled(buildDesc, prometheus.GaugeValue, 1, c.version)
}
