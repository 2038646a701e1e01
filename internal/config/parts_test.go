package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/internal/config"
)

func TestEachStageNeedsOnlyItsOwnVariables(t *testing.T) {
	t.Parallel()
	source := []string{"SOURCE_URL=postgres://h/d", "TABLES=a"}
	sink := []string{"SINK_URL=http://fe", "SINK_DATABASE=d"}
	for _, test := range []struct {
		parts   config.Parts
		environ []string
		missing string
	}{
		{config.Capture, source, ""},
		{config.Apply, sink, ""},
		{0, nil, ""},
		{config.Capture, sink, "SOURCE_URL TABLES"},
		{config.Apply, source, "SINK_URL SINK_DATABASE"},
		{config.Capture | config.Apply, nil, "SOURCE_URL TABLES SINK_URL SINK_DATABASE"},
	} {
		_, _, err := config.Load(test.environ, test.parts)
		var names []string
		if all, ok := errors.AsType[*config.Error](err); ok {
			for _, p := range all.Problems {
				names = append(names, p.Variable)
			}
		}
		if got := strings.Join(names, " "); got != test.missing {
			t.Errorf("parts %d with %v: %q is missing, want %q", test.parts, test.environ, got, test.missing)
		}
	}
}

func TestTheVariablesOfTheQueueReachTheirFields(t *testing.T) {
	t.Parallel()
	cfg, warnings := mustLoad(t, []string{
		"SOURCE_URL=postgres://h/d", "TABLES=a", "SINK_URL=http://fe", "SINK_DATABASE=d",
		"BUS_URL=n1, tls://n2:5222,nats://[::1]", "BUS_USER=u", "BUS_PASSWORD=" + hidden, "BUS_TLS_CA_FILE=ca", "BUS_TLS_CERT_FILE=c",
		"BUS_TLS_KEY_FILE=k", "BUS_REPLICAS=3", "BUS_LISTEN=OFF", "SPOOL_DIR=/spool", "INSTANCE=a-1", "MEMORY_LIMIT=512MiB",
		"SINK_REFUSED_ROWS=dead-letter", "SOURCE_STREAMING=false", "SOURCE_HEARTBEAT_S=30",
	})
	if len(warnings) != 0 {
		t.Errorf("warnings: %v", warnings)
	}
	got := fmt.Sprint(cfg.BusURL, cfg.BusUser, cfg.BusPassword.Reveal(), cfg.BusTLSCAFile, cfg.BusTLSCertFile, cfg.BusTLSKeyFile,
		cfg.BusReplicas, cfg.BusListen, cfg.SpoolDir, cfg.Instance, cfg.MemoryLimit, cfg.SinkRefusedRows, cfg.SourceStreaming, cfg.SourceHeartbeat)
	want := fmt.Sprint("nats://n1:4222,tls://n2:5222,nats://[::1]:4222", "u", hidden, "ca", "c", "k",
		3, "off", "/spool", "a-1", 512<<20, "dead-letter", false, 30*time.Second)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSettingsOfTheQueueThatExcludeEachOtherAreProblems(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ environ, variable string }{
		{"BUS_URL=nats://h BUS_LISTEN=127.0.0.1:4222", "BUS_LISTEN"},
		{"BUS_URL=nats://h BUS_NKEY_FILE=n BUS_CREDS_FILE=c", "BUS_NKEY_FILE"},
		{"BUS_URL=nats://h BUS_CREDS_FILE=c BUS_USER=u BUS_PASSWORD=p", "BUS_NKEY_FILE"},
	} {
		_, _, err := config.Load(minimal(strings.Fields(test.environ)...), config.Capture|config.Apply)
		all, ok := errors.AsType[*config.Error](err)
		if !ok || len(all.Problems) != 1 || all.Problems[0].Variable != test.variable {
			t.Errorf("%s: got %v, want a problem of %s", test.environ, err, test.variable)
		}
	}
}

func TestAListenerThatOthersReachWithoutTLSIsAWarning(t *testing.T) {
	t.Parallel()
	_, warnings := mustLoad(t, minimal("BUS_LISTEN=0.0.0.0"))
	if len(warnings) != 1 || warnings[0].Variable != "BUS_LISTEN" {
		t.Errorf("warnings: %v", warnings)
	}
}
