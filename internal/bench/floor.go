package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// bareCommand is the argument that makes this program the bare reader.
const bareCommand = "bare"

// recv has pg_recvlogical read the changes into nothing.
func (b *bench) recv(ctx context.Context, d *database) (m measured, err error) {
	const slot = "bench_recv"
	if err := d.slot(ctx, slot); err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, d.dropSlot(context.WithoutCancel(ctx), slot)) }()
	cmd := exec.Command(d.server.Program("pg_recvlogical"), //nolint:noctx // Stopped in order, not by a context.
		"--dbname", d.server.URL(d.name), "--slot", slot, "--start", "--no-loop", "--endpos", d.mark,
		"-o", "proto_version=1", "-o", "publication_names="+publication, "--file", "/dev/null", "--fsync-interval", "0", "--status-interval", "0")
	cmd.Env = childEnv()
	child, err := start("pg_recvlogical", cmd, b.log)
	if err != nil {
		return m, err
	}
	sender, err := d.awaitWalsender(ctx, slot, child.ended)
	if err != nil {
		return m, errors.Join(err, child.stop())
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var sent time.Duration
	for !child.ended() {
		// The walsender ends with the child, so its last figure but one counts.
		sent = max(sent, sender.used())
		select {
		case <-child.done:
		case <-tick.C:
		case <-ctx.Done():
			return m, errors.Join(context.Cause(ctx), child.stop())
		}
	}
	m = measured{Wall: time.Since(sender.began), CPU: child.cpu(), Walsender: sent, Rows: d.rows}
	if child.err != nil {
		return m, fmt.Errorf("run pg_recvlogical: %w", child.err)
	}
	return m, nil
}

// bareResult is what the bare reader tells.
type bareResult struct {
	Rows  int
	Bytes int64
	Reads int
}

// bareBinary is one more argument of the bare reader: it asks for values in PostgreSQL's binary form.
const bareBinary = "binary"

// bareRun has the bare reader, in a process of its own, read the changes. more are further arguments for it.
func (b *bench) bareRun(ctx context.Context, d *database, more ...string) (m measured, err error) {
	const slot = "bench_bare"
	if err := d.slot(ctx, slot); err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, d.dropSlot(context.WithoutCancel(ctx), slot)) }()
	self, err := os.Executable()
	if err != nil {
		return m, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self, append([]string{bareCommand, d.server.URL(d.name), slot, d.mark}, more...)...) //nolint:noctx // Stopped in order, not by a context.
	cmd.Env = childEnv()
	in, err := cmd.StdinPipe()
	if err != nil {
		return m, fmt.Errorf("make a pipe: %w", err)
	}
	read, write := io.Pipe()
	cmd.Stdout = write
	child, err := start("bare reader", cmd, b.log)
	if err != nil {
		return m, err
	}
	go func() {
		<-child.done
		_ = write.Close() // Never fails.
	}()
	sender, err := d.awaitWalsender(ctx, slot, nil)
	if err != nil {
		return m, errors.Join(err, child.stop())
	}
	line, err := bufio.NewReader(read).ReadBytes('\n')
	m = measured{Wall: time.Since(sender.began), Walsender: sender.used(), CPU: cpuOf(child.pid()), Rows: d.rows}
	var told bareResult
	if err == nil {
		err = json.Unmarshal(line, &told)
	}
	_ = in.Close() // Tells the child to end.
	<-child.done
	if err := errors.Join(err, child.err); err != nil {
		return m, fmt.Errorf("run the bare reader: %w", err)
	}
	m.Bytes = told.Bytes
	if told.Rows != d.rows {
		return m, fmt.Errorf("the bare reader got %d row changes of %d", told.Rows, d.rows)
	}
	return m, nil
}

// bare reads the changes of a slot, with the settings that capture has, until a transaction begins behind a position.
// It looks at nothing but what kind each message is. Then it tells what it has seen and waits for its input to end, so
// that the walsender is there to be looked at.
func bare(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	inBinary := len(args) == 4 && args[3] == bareBinary
	if len(args) != 3 && !inBinary {
		return errors.New("the bare reader wants a URL, a slot and a position")
	}
	end, err := cdc.ParseLSN(args[2])
	if err != nil {
		return fmt.Errorf("read the position: %w", err)
	}
	address, err := replication(args[0])
	if err != nil {
		return err
	}
	conn, err := pgconn.Connect(ctx, address)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	version, _ := strconv.Atoi(strings.FieldsFunc(conn.ParameterStatus("server_version"), func(r rune) bool { return r < '0' || r > '9' })[0])
	protocol := "proto_version '2', streaming 'on'"
	if version < 14 {
		protocol = "proto_version '1'"
	}
	if inBinary {
		protocol += ", binary 'true'"
	}
	// A write that took long has left a reader behind, which would take the first rows.
	if err := conn.SyncConn(ctx); err != nil {
		return fmt.Errorf("take the connection: %w", err)
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		return fmt.Errorf("take the connection: %w", err)
	}
	socket, err := newCoalescing(hijacked.Conn)
	if err != nil {
		return err
	}
	query := fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL 0/0 (%s, publication_names '%s')", args[1], protocol, publication)
	message := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(len(query)+5)) //nolint:gosec // A short command.
	if _, err := hijacked.Conn.Write(append(append(message, query...), 0)); err != nil {
		return fmt.Errorf("start replication: %w", err)
	}
	r := bareReader{end: uint64(end)}
	if err := r.run(socket, hijacked.Conn); err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(r.bareResult); err != nil {
		return fmt.Errorf("tell the result: %w", err)
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

// coalescer is a connection to the server.
type coalescer interface {
	io.Reader
	// nap waits before a read until much has come in. message is the mean size of those of the read before.
	nap(message int)
}

// plain is a connection that is read as it comes.
type plain struct{ io.Reader }

func (plain) nap(int) {}

// bareReader walks over messages.
type bareReader struct {
	bareResult
	end  uint64
	done bool
}

// run reads until the end.
func (r *bareReader) run(from coalescer, to io.Writer) error {
	buf := make([]byte, 2<<20)
	have, message := 0, 0
	for !r.done {
		if have == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
		from.nap(message)
		n, err := from.Read(buf[have:])
		if err != nil {
			return fmt.Errorf("read from server: %w", err)
		}
		r.Reads++
		have += n
		at, messages := 0, 0
		for have-at >= 5 {
			size := 1 + int(binary.BigEndian.Uint32(buf[at+1:]))
			if have-at < size {
				break
			}
			if err := r.message(buf[at], buf[at+5:at+size], to); err != nil {
				return err
			}
			at += size
			messages++
		}
		message = n / max(messages, 1)
		have = copy(buf, buf[at:have])
	}
	return nil
}

// message looks at one message: of CopyData only those that carry changes count.
func (r *bareReader) message(kind byte, payload []byte, to io.Writer) error {
	const dataHead, keepalive = 1 + 8 + 8 + 8, 1 + 8 + 8 + 1
	switch {
	case kind == 'E':
		return fmt.Errorf("read from server: it says %q", payload)
	case kind != 'd' || len(payload) == 0:
	case payload[0] == 'k' && len(payload) == keepalive && payload[keepalive-1] == 1:
		report := append([]byte{'d', 0, 0, 0, 38, 'r'}, make([]byte, 33)...)
		if _, err := to.Write(report); err != nil {
			return fmt.Errorf("answer the server: %w", err)
		}
	case payload[0] == 'w' && len(payload) > dataHead:
		r.Bytes += int64(len(payload))
		switch payload[dataHead] {
		case 'I', 'U', 'D':
			r.Rows++
		case 'C', 'c':
			// The position is that behind the commit; the transaction right before the last one ends where the last begins.
			r.done = r.done || binary.BigEndian.Uint64(payload[1:]) > r.end
		}
	}
	return nil
}
