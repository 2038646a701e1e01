package pgtest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// configFile is included from postgresql.conf, so that a second start of a data folder can replace it whole.
const configFile = "pgtest.conf"

const includeLine = "include = '" + configFile + "'\n"

// logTailBytes bounds how much of the server's log goes into an error.
const logTailBytes = 4096

// configure writes the server's settings.
func (s *Server) configure() error {
	main := filepath.Join(s.dataDir, "postgresql.conf")
	text, err := os.ReadFile(main)
	if err != nil {
		return fmt.Errorf("read the server's configuration: %w", err)
	}
	if !strings.Contains(string(text), includeLine) {
		if err := os.WriteFile(main, append(text, includeLine...), 0o600); err != nil {
			return fmt.Errorf("write the server's configuration: %w", err)
		}
	}
	path := filepath.Join(s.dataDir, configFile)
	if err := os.WriteFile(path, []byte(s.configText()), 0o600); err != nil {
		return fmt.Errorf("write the server's configuration: %w", err)
	}
	if err := s.account.own(path); err != nil {
		return fmt.Errorf("hand the server's configuration to its user: %w", err)
	}
	return nil
}

func (s *Server) configText() string {
	durable := "off"
	if s.fsync {
		durable = "on"
	}
	settings := map[string]string{
		"listen_addresses":           host,
		"unix_socket_directories":    "", // A socket's path would be too long below many a temporary folder.
		"wal_level":                  "logical",
		"max_wal_senders":            "50",
		"max_replication_slots":      "50",
		"max_connections":            "200",
		"max_prepared_transactions":  "20",
		"fsync":                      durable,
		"full_page_writes":           durable,
		"timezone":                   "UTC",
		"log_timezone":               "UTC",
		"log_line_prefix":            "%m [%p] %q%u@%d ",
		"log_min_error_statement":    "panic", // Rows that a test writes stay out of the log.
		"autovacuum_naptime":         "10min", // Its transactions would disturb tests that look at LSNs.
		"shared_preload_libraries":   "",
		"dynamic_shared_memory_type": "mmap", // Leaves nothing outside the data folder after a kill.
	}
	maps.Copy(settings, s.settings)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	return text.String()
}

// serverEnv keeps the caller's PG* variables and locale away from the server.
func serverEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
}

// LogTail is the end of the server's log, for error messages.
func (s *Server) LogTail() string {
	text, err := os.ReadFile(s.LogFile())
	if err != nil {
		return fmt.Sprintf("(no log: %v)", err)
	}
	return string(text[max(0, len(text)-logTailBytes):])
}

func (s *Server) portTaken() bool {
	return strings.Contains(s.LogTail(), "Address already in use")
}
