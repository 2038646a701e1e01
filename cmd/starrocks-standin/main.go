// Command starrocks-standin runs a stand-in for StarRocks: it answers Stream Load and the MySQL protocol the way
// StarRocks is documented to, keeps rows in memory or in a folder, and plays scripted faults. It is test equipment.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

type flags struct {
	FEHTTP          string `name:"fe-http" default:"127.0.0.1:8030" placeholder:"HOST:PORT" help:"Front end HTTP listener (${default}); port 0 picks a free one."`
	BEHTTP          string `name:"be-http" default:"127.0.0.1:8040" placeholder:"HOST:PORT" help:"Back end HTTP listener (${default})."`
	MySQL           string `name:"mysql" default:"127.0.0.1:9030" placeholder:"HOST:PORT" help:"MySQL protocol listener (${default})."`
	Admin           string `name:"admin" default:"127.0.0.1:8050" placeholder:"HOST:PORT" help:"Listener for faults and figures (${default})."`
	User            string `name:"user" default:"root" help:"The only account (${default})."`
	Password        string `name:"password" env:"STANDIN_PASSWORD" help:"Its password."`
	Data            string `name:"data" placeholder:"FOLDER" help:"Folder to keep data in; empty keeps it in memory."`
	Version         string `name:"version" default:"3.3.15" placeholder:"X.Y.Z" help:"StarRocks version whose behaviour is shown (${default})."`
	NoStore         bool   `name:"no-store" help:"Parse, check and count rows, keep none. For benchmarks."`
	LabelKeepMaxNum int    `name:"label-keep-max-num" default:"1000" placeholder:"N" help:"Transactions remembered per database (${default})."`
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("starrocks-standin"), kong.Description("A stand-in for StarRocks, for tests and demonstrations. It is not StarRocks."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, f, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "starrocks-standin:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done and prints one line per listener once they are open.
func run(ctx context.Context, f flags, out io.Writer) error {
	srv, err := starrockstest.New(starrockstest.Options{
		FEHTTP: f.FEHTTP, BEHTTP: f.BEHTTP, MySQL: f.MySQL, Admin: f.Admin, User: f.User, Password: f.Password,
		Version: f.Version, Data: f.Data, NoStore: f.NoStore, LabelKeepMaxNum: f.LabelKeepMaxNum,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-srv.Ready():
	}
	if _, err := fmt.Fprintf(out, "stand-in, not StarRocks (shows version %s)\nfe-http %s\nbe-http %s\nmysql %s\nadmin %s\n",
		f.Version, srv.FEHTTP(), srv.BEHTTP(), srv.MySQL(), srv.Admin()); err != nil {
		return err
	}
	return <-done
}
