package starrockstest

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/server"
)

// serveMySQL accepts connections until the listener closes.
func (s *Server) serveMySQL(ln net.Listener, conns *connSet) {
	conf := server.NewServer(mysqlVersion, mysql.DEFAULT_COLLATION_ID, mysql.AUTH_NATIVE_PASSWORD, nil, s.opts.MySQLTLS)
	users := server.NewInMemoryProvider()
	users.AddUser(s.opts.User, s.opts.Password)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		if !conns.add(conn) {
			return
		}
		wg.Go(func() {
			defer conns.remove(conn)
			s.serveConn(conf, users, conn)
		})
	}
}

func (s *Server) serveConn(conf *server.Server, users server.CredentialProvider, conn net.Conn) {
	h := &mysqlHandler{srv: s}
	c, err := conf.NewCustomizedConn(conn, users, h)
	if err != nil {
		s.opts.Logger.Debug("refuse connection", "err", err)
		return
	}
	h.session.client = c.Attributes()["program_name"]
	// The status flags tell clients that statements commit by themselves.
	c.SetStatus(mysql.SERVER_STATUS_AUTOCOMMIT)
	for !h.drop {
		if err := c.HandleCommand(); err != nil {
			return
		}
	}
}

// mysqlHandler is one connection.
type mysqlHandler struct {
	srv     *Server
	session session
	drop    bool
}

var errDropped = errors.New("connection dropped by a fault")

func mysqlError(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return &mysql.MyError{Code: e.Code, State: e.State, Message: e.Message}
	}
	return &mysql.MyError{Code: 1064, State: "HY000", Message: err.Error()}
}

// UseDB implements server.Handler.
func (h *mysqlHandler) UseDB(name string) error {
	st := h.srv.store
	st.mu.Lock()
	defer st.mu.Unlock()
	name = strings.TrimPrefix(name, "default_catalog.")
	if !st.databaseExists(name) {
		return mysqlError(st.unknownDatabase(name))
	}
	h.session.db = name
	return nil
}

// HandleQuery implements server.Handler.
func (h *mysqlHandler) HandleQuery(sql string) (*mysql.Result, error) {
	// The library's string points into its read buffer.
	return h.execute(strings.Clone(sql), false)
}

func (h *mysqlHandler) execute(sql string, binary bool) (*mysql.Result, error) {
	if h.drop {
		return nil, errDropped
	}
	f := h.srv.faults.take(stageMySQL, "", "", sql)
	switch {
	case f == nil:
	case f.is(FaultMySQLDrop):
		h.drop = true
		return nil, errDropped
	case f.is(FaultMySQLLost):
		h.drop = true
	default:
		return nil, mysqlError(sqlError(uint16(f.code(1064)), "HY000", "%s", f.message("stand-in fault")))
	}
	stmt, err := parseSQL(sql)
	if err != nil {
		return nil, mysqlError(err)
	}
	res, err := h.srv.store.run(&h.session, stmt)
	if h.drop {
		return nil, errDropped
	}
	if err != nil {
		return nil, mysqlError(err)
	}
	return encodeResult(res, binary, h.srv.ver.showsMicroseconds()), nil
}

// HandleFieldList implements server.Handler.
func (h *mysqlHandler) HandleFieldList(name, _ string) ([]*mysql.Field, error) {
	st := h.srv.store
	st.mu.Lock()
	defer st.mu.Unlock()
	_, t, err := st.table(&h.session, tableName{name: name})
	if err != nil {
		return nil, mysqlError(err)
	}
	var fields []*mysql.Field
	for _, c := range t.outColumns() {
		fields = append(fields, fieldOf(c))
	}
	return fields, nil
}

// preparedStatement is a statement with the places of its parameters.
type preparedStatement struct {
	sql    string
	params []int
}

// HandleStmtPrepare implements server.Handler.
func (h *mysqlHandler) HandleStmtPrepare(sql string) (params, columns int, context any, err error) {
	p := &preparedStatement{sql: strings.Clone(sql)}
	toks, err := lexSQL(p.sql)
	if err != nil {
		return 0, 0, nil, mysqlError(err)
	}
	for _, t := range toks {
		if t.kind == tokParam {
			p.params = append(p.params, t.pos)
		}
	}
	return len(p.params), 0, p, nil
}

// HandleStmtExecute implements server.Handler.
func (h *mysqlHandler) HandleStmtExecute(context any, _ string, args []any) (*mysql.Result, error) {
	p, ok := context.(*preparedStatement)
	if !ok || len(args) != len(p.params) {
		return nil, mysqlError(sqlError(1210, "HY000", "Incorrect arguments to EXECUTE"))
	}
	var b strings.Builder
	at := 0
	for i, pos := range p.params {
		b.WriteString(p.sql[at:pos])
		b.WriteString(sqlLiteral(args[i]))
		at = pos + 1
	}
	b.WriteString(p.sql[at:])
	return h.execute(b.String(), true)
}

// sqlLiteral writes an argument the way it can be parsed again.
func sqlLiteral(arg any) string {
	if arg == nil {
		return "NULL"
	}
	var text string
	switch v := arg.(type) {
	case []byte:
		text = string(v)
	case string:
		text = v
	default:
		b, err := mysql.FormatTextValue(v)
		if err != nil {
			return "NULL"
		}
		// The spaces keep a minus sign from joining an operator before it.
		return " " + string(b) + " "
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\r", `\r`, "\x00", `\0`).Replace(text) + "'"
}

// HandleStmtClose implements server.Handler.
func (h *mysqlHandler) HandleStmtClose(any) error { return nil }

// HandleOtherCommand implements server.Handler.
func (h *mysqlHandler) HandleOtherCommand(cmd byte, _ []byte) error {
	if cmd == mysql.COM_SET_OPTION {
		return nil
	}
	return mysqlError(sqlError(1047, "08S01", "Unknown command: %s", strconv.Itoa(int(cmd))))
}
