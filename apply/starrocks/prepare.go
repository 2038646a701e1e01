package starrocks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// existing is a table as StarRocks describes it.
type existing struct {
	// primary and duplicate are the two models that rows can be written to.
	primary, duplicate bool
	model              string
	columns            []existingColumn
}

type existingColumn struct {
	name     string
	target   target
	text     string // the type as StarRocks shows it
	nullable bool
	key      bool
	// fallback is the default, nil if there is none.
	fallback *string
	comment  string
}

func (e *existing) find(name string) *existingColumn {
	for i := range e.columns {
		if strings.EqualFold(e.columns[i].name, name) {
			return &e.columns[i]
		}
	}
	return nil
}

// Prepare implements [apply.Sink].
func (s *Sink) Prepare(ctx context.Context, schema *cdc.Schema) error {
	table := s.config.TableName(schema)
	if err := s.claim(schema, table); err != nil {
		return permanent(err)
	}
	if err := checkSchema(schema); err != nil {
		return permanent(err)
	}
	if err := s.createDatabase(ctx); err != nil {
		return err
	}
	nulls, schema, err := s.config.overridden(schema)
	if err != nil {
		return permanent(err)
	}
	found, err := s.describe(ctx, table)
	if err != nil {
		return fmt.Errorf("describe table %s in StarRocks: %w", table, err)
	}
	if found == nil {
		if found, err = s.create(ctx, schema, table); err != nil {
			return err
		}
	}
	if err := checkOverridden(schema, s.tableName(table), found); err != nil {
		return permanent(err)
	}
	if err := checkExisting(schema, s.tableName(table), found); err != nil {
		return permanent(err)
	}
	if found, err = s.evolve(ctx, schema, table, found); err != nil {
		return err
	}
	l, err := makeLayout(schema, table, found)
	if err != nil {
		return permanent(err)
	}
	if err := l.allowNull(nulls, found); err != nil {
		return permanent(err)
	}
	l.seal(s.config.DeleteMode, s.config.MaxBodyBytes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.layouts[keyOf(schema)] = l
	// Another process may have written to the table since the last call.
	delete(s.attempted, table)
	delete(s.seen, table)
	delete(s.missed, table)
	return nil
}

// CheckTables implements [apply.TableChecker].
func (s *Sink) CheckTables(_ context.Context, schemas []*cdc.Schema) error {
	_, err := NameTables(schemas, s.config.TableName)
	if err == nil {
		return nil
	}
	return permanent(err)
}

// claim refuses a second table of the source for one in StarRocks.
func (s *Sink) claim(schema *cdc.Schema, table string) error {
	if err := checkTableName(schema, table); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if owner := s.owners[table]; owner != nil && !sameTable(owner, schema) {
		return clashError(owner, schema, table)
	}
	s.owners[table] = schema
	return nil
}

// checkSchema reports everything about the source table that StarRocks cannot take.
func checkSchema(schema *cdc.Schema) error {
	var errs []error
	if schema.Fingerprint() == 0 {
		errs = append(errs, errors.New("its schema was not sealed: report this as a bug"))
	}
	errs = append(errs, checkColumnNames(schema)...)
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("replicate table %s: %w", schema.Name(), errors.Join(errs...))
}

// describe returns nil if there is no such table.
func (s *Sink) describe(ctx context.Context, table string) (*existing, error) {
	rows, err := s.show(ctx, "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, COLUMN_KEY, COLUMN_DEFAULT, COLUMN_COMMENT FROM information_schema.columns "+
		"WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION", s.config.Database, table)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	models, err := s.show(ctx, "SELECT TABLE_MODEL FROM information_schema.tables_config WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
		s.config.Database, table)
	if err != nil {
		return nil, err
	}
	e := &existing{model: "not one of StarRocks's own, perhaps a view"}
	if len(models) > 0 {
		e.model = models[0]["table_model"]
		e.primary, e.duplicate = strings.HasPrefix(e.model, "PRI"), strings.HasPrefix(e.model, "DUP")
	}
	for _, row := range rows {
		text := row["column_type"]
		if text == "" {
			text = row["data_type"]
		}
		c := existingColumn{
			name: row["column_name"], target: parseTarget(text), text: text, comment: row["column_comment"],
			nullable: strings.EqualFold(row["is_nullable"], "YES"), key: row["column_key"] == "PRI",
		}
		if value, ok := row["column_default"]; ok {
			c.fallback = &value
		}
		e.columns = append(e.columns, c)
	}
	return e, nil
}

func (s *Sink) create(ctx context.Context, schema *cdc.Schema, table string) (*existing, error) {
	if !s.config.CreateTables {
		return nil, permanent(fmt.Errorf("Table '%s' not found in StarRocks. Create the table before starting CDC, for example: %s", //nolint:staticcheck // The wording is part of the API.
			table, createTable(schema, s.tableName(table), 0)))
	}
	replicas, err := s.replicas(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.exec(ctx, createTable(schema, s.tableName(table), replicas)); err != nil {
		return nil, ddlError(fmt.Errorf("create table %s in StarRocks: %w", table, err))
	}
	s.config.Logger.InfoContext(ctx, "table created", slog.String("table", table), slog.String("source", schema.Name()))
	found, err := s.describe(ctx, table)
	if err == nil && found == nil {
		err = errors.New("it was created but does not show yet")
	}
	if err != nil {
		return nil, fmt.Errorf("describe table %s in StarRocks: %w", table, err)
	}
	return found, nil
}

// ddlError tells a statement that StarRocks refuses from one that it did not get.
func ddlError(err error) error {
	var my *mysql.MySQLError
	if errors.As(err, &my) && !IsPermanent(err) && !strings.Contains(my.Message, "schema change operation is in progress") {
		return permanent(err)
	}
	return err
}

// replicas returns replication_num for a new table, or zero for the cluster's default
// where it has no back ends or the user may not see them.
func (s *Sink) replicas(ctx context.Context) (int, error) {
	const replicasMax = 3
	n, err := s.aliveBackends(ctx)
	if _, ok := errors.AsType[*mysql.MySQLError](err); ok {
		s.config.Logger.WarnContext(ctx, "number of back ends is not known, new tables get the default replication", slog.Any("err", err))
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("count back ends: %w", err)
	}
	return min(n, replicasMax), nil
}

// makeLayout fits the schema to a table that has been checked.
func makeLayout(schema *cdc.Schema, table string, found *existing) (*layout, error) {
	l := &layout{schema: schema, table: table, key: schema.Key, appends: isAppend(schema), columns: make([]column, len(schema.Columns))}
	isKey := keySet(schema)
	for i := range schema.Columns {
		c := &schema.Columns[i]
		have := found.find(c.Name)
		if have == nil {
			return nil, fmt.Errorf("prepare table %s: column %q is missing in StarRocks although it was added", table, c.Name)
		}
		how, err := chooseEncoding(c, isKey[i], have.target)
		if err != nil {
			return nil, fmt.Errorf("prepare table %s: column %q: %w", table, c.Name, err)
		}
		l.columns[i] = column{source: c, name: have.name, target: have.target, how: how}
	}
	for _, audit := range auditOf(schema) {
		have := found.find(audit.name)
		if have == nil {
			return nil, fmt.Errorf("prepare table %s: column %s is missing in StarRocks although it was added", table, audit.name)
		}
		l.audit = append(l.audit, have.name)
	}
	l.foreign = len(found.columns) > len(l.columns)+len(l.audit)
	return l, nil
}

func keySet(schema *cdc.Schema) []bool {
	set := make([]bool, len(schema.Columns))
	for _, i := range schema.Key {
		set[i] = true
	}
	return set
}
