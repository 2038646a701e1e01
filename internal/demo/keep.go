package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// envFile holds what another program needs to join in.
const envFile = "demo.env"

// settings are the lines of demo.env: the variables that dbmazz was started with, and more.
func (d *demo) settings() [][2]string {
	var lines [][2]string
	for _, variable := range d.service.command.env {
		name, value, _ := strings.Cut(variable, "=")
		switch name {
		case "PATH", "HOME", "TMPDIR":
		default:
			lines = append(lines, [2]string{name, value})
		}
	}
	return append(lines, [][2]string{
		{"DEMO_DIR", d.dir},
		{"DBMAZZ_PID", fmt.Sprint(d.service.pid())},
		{"DBMAZZ_BINARY", d.binary("dbmazz")},
		{"DBMAZZ_LOG", filepath.Join(d.dir, dbmazzLog)},
		{"OWNER_URL", d.source.url(ownerRole)},
		{"STANDIN_PID", fmt.Sprint(d.sink.process.pid())},
		{"STANDIN_BINARY", d.binary("starrocks-standin")},
		{"MYSQL_ADDR", d.sink.mysql},
		{"STANDIN_FE_ADDR", d.sink.fe},
		{"STANDIN_BE_ADDR", d.sink.be},
		{"STANDIN_ADMIN_ADDR", d.sink.admin},
	}...)
}

// writeEnv writes demo.env, which a shell can source. It holds passwords of throw-away servers.
func (d *demo) writeEnv() error {
	var text strings.Builder
	text.WriteString("# The running demo; to use it in a shell: set -a; . " + envFile + "; set +a\n")
	for _, line := range d.settings() {
		text.WriteString(line[0] + "=" + shellQuote(line[1]) + "\n")
	}
	path := filepath.Join(d.dir, envFile)
	// Readers wait for the file and must never see half of it.
	if err := os.WriteFile(path+".new", []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", envFile, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write %s: %w", envFile, err)
	}
	return nil
}

func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// linger leaves everything running until Ctrl-C and says what to try.
func (d *demo) linger(ctx context.Context) error {
	host, grpcurl := "127.0.0.1", "  grpcurl -plaintext "+d.service.address+" "
	mysql := fmt.Sprintf("mysql -h %s -P %s -u %s -p%s %s", host, d.sink.port(), sinkUser, d.sink.password, sinkDatabase)
	d.say("Everything keeps running; Ctrl-C ends it. In another terminal:", "",
		grpcurl+"dbmazz.HealthService/Check",
		grpcurl+"dbmazz.CdcStatusService/GetStatus",
		"  grpcurl -plaintext -d '{\"interval_ms\": 1000}' "+d.service.address+" dbmazz.CdcMetricsService/StreamMetrics",
		grpcurl+"dbmazz.CdcControlService/Pause",
		grpcurl+"dbmazz.CdcControlService/Resume",
		"  curl http://"+d.service.metrics+"/metrics", "",
		"  psql '"+d.source.url(ownerRole)+"'",
		"  "+mysql, "",
		"Change a row and see it arrive:", "",
		"  psql '"+d.source.url(ownerRole)+`' -c "UPDATE stock SET quantity = 42 WHERE sku = 'A/0'"`,
		"  "+mysql+` -e "SELECT * FROM stock WHERE sku = 'A/0'"`, "",
		"Addresses and passwords of this run: "+filepath.Join(d.dir, envFile),
		"Logs: "+filepath.Join(d.dir, dbmazzLog)+", "+standinLog+", "+postgresLog+"   (make setup-grpcurl installs grpcurl)", "")
	<-ctx.Done()
	if cause := context.Cause(ctx); cause != errInterrupted { //nolint:errorlint // Set by this program.
		return cause
	}
	return nil
}
