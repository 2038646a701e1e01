package config

import (
	"errors"
	"log/slog"
	"strings"
	"unicode/utf8"
)

// helpWidth is the longest line of the help text.
const helpWidth = 100

// The markers around the table in the README.
const (
	readmeStart = "<!-- config:start -->"
	readmeEnd   = "<!-- config:end -->"
)

// defaultText is what a person reads as the default.
func (v *variable) defaultText() string {
	switch {
	case v.needed != 0:
		return "required"
	case v.fallback == "":
		return "-"
	}
	return v.fallback
}

// fullDoc is the description with the other names of the variable.
func (v *variable) fullDoc() string {
	doc := v.doc
	switch v.needed {
	case Capture:
		doc += " Not needed by dbmazz apply."
	case Apply:
		doc += " Not needed by dbmazz capture."
	}
	if v.file {
		doc += " " + v.name + fileSuffix + " may name a file that holds it."
	}
	if len(v.legacy) > 0 {
		doc += " Older name: " + strings.Join(v.legacy, ", ") + "."
	}
	return doc
}

// Help returns the table of variables for a terminal, at most 100 columns wide.
func Help() string {
	nameWidth, defaultWidth := 0, 0
	for i := range variables {
		nameWidth = max(nameWidth, len(variables[i].name))
		defaultWidth = max(defaultWidth, len(variables[i].defaultText()))
	}
	indent := 2 + nameWidth + 2 + defaultWidth + 2
	var b strings.Builder
	for i := range variables {
		v := &variables[i]
		head := "  " + pad(v.name, nameWidth) + "  " + pad(v.defaultText(), defaultWidth) + "  "
		for _, line := range wrap(v.fullDoc(), helpWidth-indent) {
			b.WriteString(head + line + "\n")
			head = strings.Repeat(" ", indent)
		}
	}
	return b.String()
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

// wrap breaks a text at spaces. A longer word has a line of its own.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// Markdown returns the table of variables for the README, markers included.
func Markdown() string {
	var b strings.Builder
	b.WriteString(readmeStart + "\n| Variable | Default | Meaning |\n|---|---|---|\n")
	for i := range variables {
		v := &variables[i]
		fallback := v.defaultText()
		if v.needed == 0 && v.fallback != "" {
			fallback = "`" + fallback + "`"
		}
		doc := strings.ReplaceAll(strings.ReplaceAll(v.fullDoc(), "|", `\|`), "<", "&lt;")
		b.WriteString("| `" + v.name + "` | " + fallback + " | " + doc + " |\n")
	}
	b.WriteString(readmeEnd)
	return b.String()
}

// CheckReadme tells whether the table in a README is the one that Markdown returns.
func CheckReadme(text string) error {
	start := strings.Index(text, readmeStart)
	end := strings.Index(text, readmeEnd)
	if start < 0 || end < start {
		return errors.New("find the configuration table: want " + readmeStart + " and, after it, " + readmeEnd)
	}
	found := strings.Split(text[start:end+len(readmeEnd)], "\n")
	want := strings.Split(Markdown(), "\n")
	for i, line := range want {
		if i >= len(found) || strings.TrimRight(found[i], " \r") != line {
			return errors.New("the configuration table differs from the code; its next line must be: " + line)
		}
	}
	if len(found) != len(want) {
		return errors.New("the configuration table has lines after its end: " + found[len(want)])
	}
	return nil
}

// Redacted returns the configuration for a start-up log line. Secrets are not in it,
// only whether they are set.
func (c Config) Redacted() []slog.Attr {
	return []slog.Attr{
		slog.String("source_url", c.SourceURL.String()),
		slog.String("slot", c.SlotName),
		slog.String("publication", c.PublicationName),
		slog.String("tables", c.Tables.String()),
		slog.Duration("tables_interval", c.TablesInterval),
		slog.String("source_partitions", c.Partitions),
		slog.Bool("source_streaming", c.SourceStreaming),
		slog.Duration("source_heartbeat", c.SourceHeartbeat),
		slog.String("sink_url", c.SinkURL),
		slog.Int("sink_port", c.SinkPort),
		slog.String("sink_database", c.SinkDatabase),
		slog.String("sink_user", c.SinkUser),
		slog.Bool("sink_password_set", !c.SinkPassword.IsZero()),
		slog.String("sink_delete_mode", c.SinkDeleteMode),
		slog.String("sink_table_name", c.SinkTableName),
		slog.String("sink_be_hosts", strings.Join(c.SinkBEHosts, ",")),
		slog.Duration("sink_load_timeout", c.SinkLoadTimeout),
		slog.String("sink_refused_rows", c.SinkRefusedRows),
		slog.Int("flush_size", c.FlushSize),
		slog.Duration("flush_interval", c.FlushInterval),
		slog.Int64("flush_bytes", c.FlushBytes),
		slog.Duration("min_load_interval", c.MinLoadInterval),
		slog.String("grpc_addr", c.GRPCAddr),
		slog.Bool("grpc_token_set", !c.GRPCToken.IsZero()),
		slog.Bool("grpc_tls", c.GRPCTLSCertFile != ""),
		slog.Bool("grpc_client_ca", c.GRPCTLSClientCAFile != ""),
		slog.Bool("grpc_insecure", c.GRPCInsecure),
		slog.String("metrics_addr", c.MetricsAddr),
		slog.Duration("flight_recorder", c.FlightRecorder),
		slog.String("bus_data_dir", c.BusDataDir),
		slog.String("bus_url", c.BusURL),
		slog.String("bus_listen", c.BusListen),
		slog.Int("bus_replicas", c.BusReplicas),
		slog.Int64("bus_max_bytes", c.BusMaxBytes),
		slog.Duration("bus_retention", c.BusRetention),
		slog.Duration("shutdown_timeout", c.ShutdownTimeout),
	}
}
