package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	sinkUser     = "demo"
	sinkDatabase = "shop"
)

// sink is the stand-in for StarRocks, a process of its own.
type sink struct {
	command  command
	password string
	ended    func(error)
	process  *process
	db       *sql.DB

	fe, be, mysql, admin string // Its addresses.
}

// startSink starts the stand-in. FE and BE are on two addresses, so that the redirect between them crosses hosts. With
// durable the rows are on disk and survive a kill.
func startSink(ctx context.Context, dir, binary string, durable bool, ended func(error)) (*sink, error) {
	s := &sink{password: rand.Text()[:passwordSize], ended: ended}
	s.command = command{
		name: "stand-in", path: binary, dir: dir, log: filepath.Join(dir, standinLog),
		env: childEnv("STANDIN_PASSWORD=" + s.password),
	}
	arguments := []string{"--user", sinkUser}
	if durable {
		arguments = append(arguments, "--data", filepath.Join(dir, "standin"))
	}
	s.command.args = append(arguments, addresses("127.0.0.1:0", "127.0.0.2:0", "127.0.0.1:0", "127.0.0.1:0")...)
	var err error
	if s.process, err = start(s.command, ended); err != nil {
		return nil, err
	}
	err = poll(ctx, startWithin, "the stand-in to listen", func(context.Context) (bool, error) {
		said := firstWords(s.command.log)
		s.fe, s.be, s.mysql, s.admin = said["fe-http"], said["be-http"], said["mysql"], said["admin"]
		return s.admin != "", nil
	})
	if err != nil {
		return s, err
	}
	s.command.args = append(arguments, addresses(s.fe, s.be, s.mysql, s.admin)...)
	config := mysql.NewConfig()
	config.User, config.Passwd, config.Net, config.Addr = sinkUser, s.password, "tcp", s.mysql
	config.Logger = &mysql.NopLogger{} // What matters comes back as an error.
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return s, fmt.Errorf("connect to the sink: %w", err)
	}
	s.db = sql.OpenDB(connector)
	if _, err := s.db.ExecContext(ctx, "CREATE DATABASE "+sinkDatabase); err != nil {
		return s, fmt.Errorf("create the database in the sink: %w", err)
	}
	return s, nil
}

func addresses(fe, be, mysql, admin string) []string {
	return []string{"--fe-http", fe, "--be-http", be, "--mysql", mysql, "--admin", admin}
}

// restart starts the stand-in again on the same addresses and data.
func (s *sink) restart(ctx context.Context) error {
	var err error
	if s.process, err = start(s.command, s.ended); err != nil {
		return err
	}
	return poll(ctx, startWithin, "the stand-in to listen again", func(ctx context.Context) (bool, error) {
		return s.db.PingContext(ctx) == nil, nil
	})
}

// close ends the stand-in.
func (s *sink) close(ctx context.Context) error {
	var errs []error
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.process != nil {
		errs = append(errs, s.process.stop(ctx, stopWithin))
	}
	return errors.Join(errs...)
}

func (s *sink) port() string {
	_, port, err := net.SplitHostPort(s.mysql)
	if err != nil {
		return s.mysql
	}
	return port
}

const (
	startWithin = 60 * time.Second
	pollEvery   = 50 * time.Millisecond
)

// poll asks until the answer is yes, or the time is over.
func poll(ctx context.Context, within time.Duration, what string, ready func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := ready(ctx)
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
