package config

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// secretFileMax bounds what NAME_FILE may hold.
const secretFileMax = 64 << 10

// Load reads the configuration of a command that runs the given parts from variables as
// os.Environ returns them; of a variable that is given twice the last counts, and an
// empty one counts as not set. The error is an *Error that names every problem.
func Load(environ []string, parts Parts) (Config, []Warning, error) {
	l := loader{values: valuesOf(environ), parts: parts}
	for i := range variables {
		l.load(&variables[i])
	}
	l.combine()
	l.warnUnknown()
	if len(l.problems) > 0 {
		return Config{}, l.warnings, &Error{Problems: l.problems}
	}
	return l.config, l.warnings, nil
}

func valuesOf(environ []string) map[string]string {
	values := make(map[string]string, len(environ))
	for _, line := range environ {
		if name, value, ok := strings.Cut(line, "="); ok {
			values[name] = value
		}
	}
	return values
}

type loader struct {
	values   map[string]string
	parts    Parts
	config   Config
	problems []Problem
	warnings []Warning
}

func (l *loader) problem(name, format string, args ...any) {
	text := strings.Join(strings.FieldsFunc(fmt.Sprintf(format, args...), isLineBreak), " ")
	l.problems = append(l.problems, Problem{name, text})
}

func isLineBreak(r rune) bool { return r == '\n' || r == '\r' }

func (l *loader) warn(name, format string, args ...any) {
	l.warnings = append(l.warnings, Warning{name, fmt.Sprintf(format, args...)})
}

// load finds the text of one variable and parses it.
func (l *loader) load(v *variable) {
	name, text, ok := l.find(v)
	switch {
	case !ok:
		return
	case text == "" && v.needed&l.parts != 0:
		l.problem(v.name, "%s", requiredText(v))
		return
	case text == "":
		return
	}
	if err := v.set(&l.config, text); err != nil {
		message := err.Error()
		if v.secret && strings.Contains(message, text) {
			message = "its value is not accepted. " + v.doc
		}
		l.problem(name, "%s", message)
	}
}

// find returns the text of a variable and the name it came from. ok is false when
// there is a problem, which is then noted.
func (l *loader) find(v *variable) (name, text string, ok bool) {
	fileName := v.name + fileSuffix
	text = l.values[v.name]
	path := ""
	if v.file {
		path = l.values[fileName]
	}
	switch {
	case text != "" && path != "":
		l.problem(v.name, "%s is set as well; set only one of the two", fileName)
		return "", "", false
	case path != "":
		read, err := readSecretFile(path)
		if err != nil {
			l.problem(fileName, "%s", err)
			return "", "", false
		}
		text, name = read, fileName
	case text != "":
		name = v.name
	}
	for _, legacy := range v.legacy {
		old := l.values[legacy]
		if old == "" {
			continue
		}
		if text != "" {
			l.warn(legacy, "ignored, since %s is set", name)
			continue
		}
		l.warn(legacy, "deprecated; use %s", v.name)
		text, name = l.legacyText(legacy, old), legacy
	}
	if text == "" {
		return v.name, v.fallback, true
	}
	return name, text, true
}

// legacyText turns the value of an older name into what the newer one takes.
func (l *loader) legacyText(legacy, old string) string {
	if legacy != legacyLogLevel {
		return old
	}
	level, ok := plainLevel(old)
	if !ok {
		l.warn(legacy, "%s holds no plain level; ignored", show(old))
	}
	return level
}

func requiredText(v *variable) string {
	var others []string
	if v.file {
		others = append(others, v.name+fileSuffix)
	}
	for _, legacy := range v.legacy {
		others = append(others, "the older "+legacy)
	}
	text := "it must be set"
	if len(others) > 0 {
		text += " (or " + strings.Join(others, " or ") + ")"
	}
	return text + ". " + v.doc
}

func readSecretFile(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the file: %w", err)
	}
	if len(data) > secretFileMax {
		return "", fmt.Errorf("%s is larger than %d bytes", path, secretFileMax)
	}
	data = bytes.TrimSuffix(data, []byte("\n"))
	data = bytes.TrimSuffix(data, []byte("\r"))
	if len(data) == 0 {
		return "", fmt.Errorf("%s is empty", path)
	}
	if bytes.ContainsAny(data, "\x00\n") {
		return "", errors.New("the file has more than one line; want only the value")
	}
	return string(data), nil
}

// combine checks what takes more than one variable to know.
func (l *loader) combine() {
	c := &l.config
	if c.GRPCAddr == "" {
		c.GRPCAddr = net.JoinHostPort(grpcHostDefault, "")
	}
	if host, port, err := net.SplitHostPort(c.GRPCAddr); err == nil && port == "" {
		c.GRPCAddr = net.JoinHostPort(host, strconv.Itoa(c.grpcPort))
	} else if set := l.values["GRPC_PORT"]; set != "" && set != port {
		l.warn("GRPC_PORT", "ignored, since GRPC_ADDR names a port")
	}
	c.grpcPort = 0
	l.pair("GRPC_TLS_CERT_FILE", c.GRPCTLSCertFile, "GRPC_TLS_KEY_FILE", c.GRPCTLSKeyFile)
	l.pair("SINK_TLS_CERT_FILE", c.SinkTLSCertFile, "SINK_TLS_KEY_FILE", c.SinkTLSKeyFile)
	if c.GRPCTLSClientCAFile != "" && c.GRPCTLSCertFile == "" {
		l.problem("GRPC_TLS_CLIENT_CA_FILE", "it needs GRPC_TLS_CERT_FILE and GRPC_TLS_KEY_FILE as well")
	}
	c.FlushBytesSet = l.values["FLUSH_BYTES"] != ""
	l.combineSink()
	l.combineBus()
	l.checkFiles()
	l.checkExposure("GRPC_ADDR", c.GRPCAddr)
	l.checkExposure("METRICS_ADDR", c.MetricsAddr)
}

// pair refuses one of two files without the other.
func (l *loader) pair(name, value, other, otherValue string) {
	switch {
	case value != "" && otherValue == "":
		l.problem(name, "it needs %s as well", other)
	case value == "" && otherValue != "":
		l.problem(other, "it needs %s as well", name)
	}
}

// combineSink checks the settings of the sink against each other.
func (l *loader) combineSink() {
	c := &l.config
	if c.SinkSQLTLS || strings.HasPrefix(c.SinkURL, "https://") {
		return
	}
	for name, value := range map[string]string{"SINK_TLS_CA_FILE": c.SinkTLSCAFile, "SINK_TLS_CERT_FILE": c.SinkTLSCertFile} {
		if value != "" {
			l.warn(name, "it has no effect, since SINK_URL is not https and SINK_SQL_TLS is not set")
		}
	}
}

// checkFiles warns of files with secrets that others can read or change: everybody, or for
// changes the group. A group may read them, which is how secrets are mounted in containers.
func (l *loader) checkFiles() {
	const others, groupWrite = 0o007, 0o020
	c := &l.config
	files := []struct{ name, path string }{
		{"GRPC_TLS_KEY_FILE", c.GRPCTLSKeyFile},
		{"SINK_TLS_KEY_FILE", c.SinkTLSKeyFile},
		{"BUS_TLS_KEY_FILE", c.BusTLSKeyFile},
		{"BUS_NKEY_FILE", c.BusNKeyFile},
		{"BUS_CREDS_FILE", c.BusCredsFile},
	}
	for i := range variables {
		if v := &variables[i]; v.file {
			files = append(files, struct{ name, path string }{v.name + fileSuffix, l.values[v.name+fileSuffix]})
		}
	}
	for _, f := range files {
		if f.path == "" {
			continue
		}
		if info, err := os.Stat(f.path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&(others|groupWrite) != 0 {
			l.warn(f.name, "%s can be read or changed by others (mode %#o): chmod 600 it, or mount it with mode 0400", f.path, info.Mode().Perm())
		}
	}
}

// combineBus checks the settings of the queue against each other.
func (l *loader) combineBus() {
	c := &l.config
	l.pair("BUS_TLS_CERT_FILE", c.BusTLSCertFile, "BUS_TLS_KEY_FILE", c.BusTLSKeyFile)
	if (c.BusUser == "") != c.BusPassword.IsZero() {
		l.problem("BUS_USER", "BUS_USER and BUS_PASSWORD need each other")
	}
	ways := 0
	for _, set := range []bool{c.BusNKeyFile != "", c.BusCredsFile != "", c.BusUser != ""} {
		if set {
			ways++
		}
	}
	switch {
	case ways > 1:
		l.problem("BUS_NKEY_FILE", "set only one of BUS_NKEY_FILE, BUS_CREDS_FILE and BUS_USER")
	case c.BusURL == "" && ways > 0:
		l.warn("BUS_URL", "it is not set, so what is set to sign in there has no effect")
	}
	switch {
	case c.BusURL != "" && c.BusListen != "" && c.BusListen != BusOff:
		l.problem("BUS_LISTEN", "it is about the server inside dbmazz, which does not run when BUS_URL is set; unset one of the two")
	case c.BusURL != "" && ways == 0 && c.BusTLSCertFile == "":
		l.warn("BUS_URL", "nothing is set to sign in with (BUS_NKEY_FILE, BUS_CREDS_FILE, BUS_USER, BUS_TLS_CERT_FILE): whoever reaches the servers can read the data and stop the pipeline")
	case c.BusURL != "" && !strings.HasPrefix(c.BusURL, "tls://") && c.BusTLSCAFile == "" && !allLoopback(c.BusURL):
		l.warn("BUS_URL", "the data may travel unencrypted; use tls:// unless the network is trusted")
	case c.BusURL == "" && c.BusReplicas > 1:
		l.problem("BUS_REPLICAS", "the server inside dbmazz is one; more need BUS_URL of a NATS cluster")
	case c.BusListen != "" && c.BusListen != BusOff && !isLoopback(c.BusListen) && c.BusTLSCertFile == "":
		l.warn("BUS_LISTEN", "%s carries the data unencrypted; set BUS_TLS_CERT_FILE and BUS_TLS_KEY_FILE", c.BusListen)
	}
}

// allLoopback tells whether every server of a list is on this machine.
func allLoopback(urls string) bool {
	for server := range strings.SplitSeq(urls, ",") {
		if _, addr, _ := strings.Cut(server, "://"); !isLoopback(addr) {
			return false
		}
	}
	return true
}

// checkExposure refuses an address that others can reach and nothing protects.
func (l *loader) checkExposure(name, addr string) {
	c := &l.config
	if addr == "" || isLoopback(addr) {
		return
	}
	switch {
	case c.GRPCToken.IsZero() && l.values["GRPC_TOKEN"] == "" && l.values["GRPC_TOKEN_FILE"] == "" &&
		c.GRPCTLSClientCAFile == "" && !c.GRPCInsecure:
		l.problem(name, "%s can be reached from other machines; set GRPC_TOKEN or GRPC_TLS_CLIENT_CA_FILE, "+
			"listen on 127.0.0.1, or set GRPC_INSECURE=true if everybody may control the pipeline", addr)
	case c.GRPCTLSCertFile == "" && !c.GRPCToken.IsZero():
		l.warn(name, "%s carries the token unencrypted; set GRPC_TLS_CERT_FILE and GRPC_TLS_KEY_FILE", addr)
	}
}
