package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds that a reload of the running configuration must keep as well.
const (
	FlushSizeMax     = 10_000_000
	FlushIntervalMax = time.Hour
)

// retentionMax bounds BUS_RETENTION.
const retentionMax = 366 * 24 * time.Hour

// legacyLogLevel holds a list of directives rather than a level.
const legacyLogLevel = "RUST_LOG"

// setter parses the text of a variable that is set.
type setter func(c *Config, text string) error

// The units of duration, with their names.
type unit struct {
	length time.Duration
	name   string
}

var (
	unitSeconds      = unit{time.Second, "seconds"}
	unitMilliseconds = unit{time.Millisecond, "milliseconds"}
)

func text(field func(*Config) *string) setter {
	return func(c *Config, value string) error {
		if !utf8.ValidString(value) || strings.ContainsAny(value, "\x00\r\n") {
			return fmt.Errorf("%s is not one line of text", show(value))
		}
		*field(c) = value
		return nil
	}
}

func secret(field func(*Config) *Secret) setter {
	return func(c *Config, value string) error {
		*field(c) = Secret{value}
		return nil
	}
}

// choices pairs what may be written with what it means.
type choices [][2]string

func choice(field func(*Config) *string, accepted choices) setter {
	return func(c *Config, value string) error {
		names := make([]string, len(accepted))
		for i, pair := range accepted {
			if strings.EqualFold(value, pair[0]) {
				*field(c) = pair[1]
				return nil
			}
			names[i] = pair[0]
		}
		return fmt.Errorf("%s is not supported; want %s", show(value), strings.Join(names, " or "))
	}
}

func boolean(field func(*Config) *bool) setter {
	return func(c *Config, value string) error {
		parsed, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%s is neither true nor false", show(value))
		}
		*field(c) = parsed
		return nil
	}
}

func parseInteger(value string, least, most int64) (int64, error) {
	parsed, err := strconv.ParseInt(value, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%s is not a whole number; want %d to %d", show(value), least, most)
	}
	if err != nil || parsed < least || parsed > most {
		return 0, fmt.Errorf("%s is out of range; want %d to %d", show(value), least, most)
	}
	return parsed, nil
}

// integer accepts 1 to most.
func integer(field func(*Config) *int, most int64) setter {
	return func(c *Config, value string) error {
		parsed, err := parseInteger(value, 1, most)
		if err != nil {
			return err
		}
		*field(c) = int(parsed)
		return nil
	}
}

// from0 accepts 0 to most.
func from0(field func(*Config) *int, most int64) setter {
	return func(c *Config, value string) error {
		parsed, err := parseInteger(value, 0, most)
		if err != nil {
			return err
		}
		*field(c) = int(parsed)
		return nil
	}
}

func duration(field func(*Config) *time.Duration, in unit, least, most int64) setter {
	return func(c *Config, value string) error {
		parsed, err := parseInteger(value, least, most)
		if err != nil {
			return fmt.Errorf("%w %s", err, in.name)
		}
		*field(c) = time.Duration(parsed) * in.length
		return nil
	}
}

// sizeUnits are the suffixes of sizes. K, M and G alone are missing on purpose: some
// tools mean 1000 by them and some 1024.
var sizeUnits = map[string]uint64{
	"": 1, "b": 1,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
}

var sizePattern = regexp.MustCompile(`^([0-9]+) ?([A-Za-z]*)$`)

func size(field func(*Config) *int64, least, most uint64) setter {
	return func(c *Config, value string) error {
		groups := sizePattern.FindStringSubmatch(value)
		if groups == nil {
			return fmt.Errorf("%s is not a size; want a whole number of bytes or one with a suffix such as 64MiB", show(value))
		}
		factor, known := sizeUnits[strings.ToLower(groups[2])]
		if !known {
			return fmt.Errorf("%s has an unknown suffix; want KiB, MiB, GiB, TiB (powers of 1024) or KB, MB, GB, TB (powers of 1000)", show(value))
		}
		number, err := strconv.ParseUint(groups[1], 10, 64)
		over, bytes := bits.Mul64(number, factor)
		if err != nil || over != 0 || bytes < least || bytes > most {
			return fmt.Errorf("%s is out of range; want %d to %d bytes", show(value), least, most)
		}
		*field(c) = int64(bytes) //nolint:gosec // most is far below the limit.
		return nil
	}
}

var slotPattern = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

func setSlotName(c *Config, value string) error {
	if !slotPattern.MatchString(value) {
		return fmt.Errorf("%s is not a slot name; want 1 to 63 of a-z, 0-9 and _", show(value))
	}
	c.SlotName = value
	return nil
}

var instancePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,48}$`)

func setInstance(c *Config, value string) error {
	if !instancePattern.MatchString(value) {
		return fmt.Errorf("%s is not an instance name; want 1 to 48 of A-Z, a-z, 0-9, _ and -", show(value))
	}
	c.Instance = value
	return nil
}

func setPublicationName(c *Config, value string) error {
	if len(value) > identifierMax || !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		return fmt.Errorf("%s is not a publication name; want text of 1 to %d bytes", show(value), identifierMax)
	}
	c.PublicationName = value
	return nil
}

func setTables(c *Config, value string) error {
	tables, err := ParseSelection(value)
	if err != nil {
		return err
	}
	if tables.IsZero() {
		return fmt.Errorf("%s names no table; want a list such as orders,shop.items or public.*", show(value))
	}
	c.Tables = tables
	return nil
}

// setTableName refuses what would give many tables one name, and what no sink takes.
func setTableName(c *Config, value string) error {
	rest := strings.NewReplacer("{schema}", "", "{table}", "").Replace(value)
	switch {
	case !strings.Contains(value, "{table}"):
		return fmt.Errorf("%s gives many tables one name; want {table} in it, such as {schema}_{table}", show(value))
	case strings.ContainsAny(rest, "{}"):
		return fmt.Errorf("%s has something else than {schema} and {table} in braces", show(value))
	case !utf8.ValidString(rest) || strings.ContainsFunc(rest, func(r rune) bool { return r == '/' || r == '\\' || unicode.IsControl(r) || unicode.IsSpace(r) }):
		return fmt.Errorf("%s holds spaces, slashes or control characters", show(value))
	}
	c.SinkTableName = value
	return nil
}

// setSnapshot takes the words of the older DO_SNAPSHOT as well.
func setSnapshot(c *Config, value string) error {
	switch strings.ToLower(value) {
	case SnapshotInitial, "true", "1":
		c.Snapshot = SnapshotInitial
	case SnapshotNever, "false", "0":
		c.Snapshot = SnapshotNever
	case SnapshotOnly:
		c.Snapshot = SnapshotOnly
	default:
		return fmt.Errorf("%s is not supported; want initial, never or only", show(value))
	}
	return nil
}

func setRetention(c *Config, value string) error {
	parsed, err := time.ParseDuration(value)
	if err != nil {
		return fmt.Errorf("%s is not a duration; want a number with a unit such as 90m or 24h, or 0", show(value))
	}
	if parsed < 0 || parsed > retentionMax {
		return fmt.Errorf("%s is out of range; want 0 to %dh", show(value), int(retentionMax.Hours()))
	}
	c.BusRetention = parsed
	return nil
}

var logLevels = map[string]slog.Level{
	"trace": slog.LevelDebug, // The legacy form has it.
	"debug": slog.LevelDebug,
	"info":  slog.LevelInfo,
	"warn":  slog.LevelWarn,
	"error": slog.LevelError,
}

func setLogLevel(c *Config, value string) error {
	level, known := logLevels[strings.ToLower(value)]
	if !known || strings.EqualFold(value, "trace") {
		return fmt.Errorf("%s is not a level; want debug, info, warn or error", show(value))
	}
	c.LogLevel = level
	return nil
}

// plainLevel finds the level without a target in a list such as dbmazz=debug,warn.
func plainLevel(directives string) (level string, ok bool) {
	for directive := range strings.SplitSeq(directives, ",") {
		directive = strings.ToLower(strings.TrimSpace(directive))
		if found, known := logLevels[directive]; known {
			level, ok = strings.ToLower(found.String()), true
		}
	}
	return level, ok
}
