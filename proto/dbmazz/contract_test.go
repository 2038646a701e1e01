package dbmazz_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// original is the contract of the original dbmazz, the 1.x additions included. It may
// never change.
const original = `
service CdcControlService
  DrainAndStop(DrainRequest) ControlResponse
  Pause(PauseRequest) ControlResponse
  PauseSnapshot(PauseSnapshotRequest) ControlResponse
  ReloadConfig(ReloadConfigRequest) ControlResponse
  Resume(ResumeRequest) ControlResponse
  ResumeSnapshot(ResumeSnapshotRequest) ControlResponse
  StartSnapshot(StartSnapshotRequest) ControlResponse
  Stop(StopRequest) ControlResponse
service CdcMetricsService
  StreamMetrics(MetricsRequest) stream MetricsResponse
service CdcStatusService
  GetStatus(StatusRequest) StatusResponse
service HealthService
  Check(HealthCheckRequest) HealthCheckResponse
HealthCheckRequest: service=1 string
HealthCheckResponse: status=1 enum stage=2 enum stage_detail=3 string error_detail=4 string
HealthCheckResponse.ServingStatus: UNKNOWN=0 SERVING=1 NOT_SERVING=2
HealthCheckResponse.Stage: STAGE_UNKNOWN=0 STAGE_INIT=1 STAGE_SETUP=2 STAGE_CDC=3 STAGE_SNAPSHOT=4
PauseRequest:
ResumeRequest:
DrainRequest:
StopRequest: skip_slot_cleanup=1 bool
ReloadConfigRequest: flush_size=1 uint64 flush_interval_ms=2 uint64 tables=3 repeated string
StartSnapshotRequest:
PauseSnapshotRequest:
ResumeSnapshotRequest:
ControlResponse: success=1 bool message=2 string
StatusRequest:
StatusResponse: state=1 enum current_lsn=2 uint64 confirmed_lsn=3 uint64 pending_events=4 uint64 slot_name=5 string tables=6 repeated string snapshot_active=7 bool snapshot_chunks_total=8 uint64 snapshot_chunks_done=9 uint64 snapshot_rows_synced=10 uint64 table_progress=11 repeated TableSnapshotProgress snapshot_paused=12 bool
StatusResponse.CdcState: RUNNING=0 PAUSED=1 DRAINING=2 STOPPED=3
TableSnapshotProgress: table_name=1 string chunks_total=2 uint64 chunks_done=3 uint64 rows_synced=4 uint64
MetricsRequest: interval_ms=1 uint32
MetricsResponse: timestamp=1 uint64 events_per_second=2 double lag_bytes=3 uint64 lag_events=4 uint64 memory_bytes=5 uint64 total_events_processed=6 uint64 total_batches_sent=7 uint64 cpu_millicores=8 uint64 replication_lag_ms=9 uint64
`

// additionsFrom is the first number that this version's fields of old messages use.
const additionsFrom = 100

// describe prints the contract without what was added to it.
func describe() string {
	added := map[protoreflect.Name]bool{"StageStatus": true, "QueueStatus": true, "ProcessStatus": true}
	file := pb.File_dbmazz_dbmazz_proto
	var b strings.Builder
	for _, service := range []protoreflect.Name{"CdcControlService", "CdcMetricsService", "CdcStatusService", "HealthService"} {
		fmt.Fprintf(&b, "service %s\n", service)
		methods := file.Services().ByName(service).Methods()
		var lines []string
		for i := range methods.Len() {
			m := methods.Get(i)
			kind := ""
			if m.IsStreamingServer() {
				kind = "stream "
			}
			lines = append(lines, fmt.Sprintf("  %s(%s) %s%s\n", m.Name(), m.Input().Name(), kind, m.Output().Name()))
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, ""))
	}
	for i := range file.Messages().Len() {
		message := file.Messages().Get(i)
		if added[message.Name()] {
			continue
		}
		fmt.Fprintf(&b, "%s:", message.Name())
		for j := range message.Fields().Len() {
			if field := message.Fields().Get(j); field.Number() < additionsFrom {
				fmt.Fprintf(&b, " %s=%d %s", field.Name(), field.Number(), kindOf(field))
			}
		}
		b.WriteString("\n")
		for j := range message.Enums().Len() {
			enum := message.Enums().Get(j)
			fmt.Fprintf(&b, "%s.%s:", message.Name(), enum.Name())
			for k := range enum.Values().Len() {
				fmt.Fprintf(&b, " %s=%d", enum.Values().Get(k).Name(), enum.Values().Get(k).Number())
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func kindOf(field protoreflect.FieldDescriptor) string {
	kind := field.Kind().String()
	if field.Message() != nil {
		kind = string(field.Message().Name())
	}
	if field.IsList() {
		kind = "repeated " + kind
	}
	return kind
}

func lines(text string) map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(text) {
		set[strings.TrimRight(line, "\n")] = true
	}
	return set
}

func TestTheContractOfTheOriginalIsKept(t *testing.T) {
	t.Parallel()
	if pb.File_dbmazz_dbmazz_proto.Package() != "dbmazz" {
		t.Errorf("got package %s, want dbmazz", pb.File_dbmazz_dbmazz_proto.Package())
	}
	if diff := cmp.Diff(lines(strings.TrimPrefix(original, "\n")), lines(describe())); diff != "" {
		t.Error(diff)
	}
}
