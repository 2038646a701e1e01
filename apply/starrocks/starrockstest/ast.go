package starrockstest

// statement is a parsed statement with its text, which the log keeps.
type statement struct {
	sql  string
	node any
}

type tableName struct{ db, name string }

type createDatabase struct {
	name        string
	ifNotExists bool
}

type dropDatabase struct {
	name     string
	ifExists bool
}

type useDatabase struct{ name string }

// columnDef is a column as written.
type columnDef struct {
	name     string
	typ      colType
	key      bool
	nullable *bool
	// hasDefault with defaultNull is DEFAULT NULL.
	hasDefault, defaultNow, defaultNull bool
	defaultVal                          string
	comment                             string
}

type createTable struct {
	name        tableName
	ifNotExists bool
	columns     []columnDef
	model       tableModel
	keys        []string
	comment     string
	distributed []string
	buckets     int
	sortKey     []string
	properties  []property
}

type property struct{ key, value string }

type dropTable struct {
	name     tableName
	ifExists bool
}

type truncateTable struct{ name tableName }

type alterTable struct {
	name    tableName
	clauses []alterClause
}

type alterKind uint8

const (
	alterAdd alterKind = iota + 1
	alterDrop
	alterModify
	alterRenameColumn
	alterRenameTable
	alterSet
	alterComment
)

type alterClause struct {
	kind    alterKind
	column  columnDef
	name    string // dropped or renamed column
	newName string
	first   bool
	after   string
	props   []property
}

type insertRows struct {
	name    tableName
	columns []string
	rows    [][]expr
}

type updateRows struct {
	name  tableName
	set   []assignment
	where expr
}

type assignment struct {
	column string
	value  expr
}

type deleteRows struct {
	name  tableName
	where expr
}

type selectItem struct {
	star  bool
	e     expr
	alias string
	text  string
}

type orderItem struct {
	e    expr
	desc bool
}

type selectRows struct {
	distinct bool
	items    []selectItem
	from     *tableName
	alias    string
	where    expr
	groupBy  []expr
	having   expr
	orderBy  []orderItem
	limit    int // -1 without LIMIT
	offset   int
}

type showKind uint8

const (
	showDatabases showKind = iota + 1
	showTables
	showColumns
	showCreateTable
	showFrontends
	showBackends
	showComputeNodes
	showVariables
	showFrontendConfig
	showAlterColumn
	showWarnings
	showProcesslist
)

type show struct {
	kind    showKind
	full    bool
	name    tableName
	db      string
	like    string
	hasLike bool
	filter  selectRows // WHERE, ORDER BY and LIMIT
}

type setConfig struct{ key, value string }

// ignored is a statement that succeeds without effect, such as SET.
type ignored struct{}

type expr any

type literal struct{ v value }

type columnRef struct{ table, name string }

type systemVariable struct{ name string }

type unaryExpr struct {
	op string
	e  expr
}

type binaryExpr struct {
	op   string
	l, r expr
}

type inExpr struct {
	e    expr
	list []expr
	not  bool
}

type isNullExpr struct {
	e   expr
	not bool
}

type betweenExpr struct {
	e, low, high expr
	not          bool
}

type likeExpr struct {
	e, pattern expr
	not        bool
}

type callExpr struct {
	name     string
	args     []expr
	star     bool
	distinct bool
}

type castExpr struct {
	e   expr
	typ colType
}
