package starrockstest

import "fmt"

// Error is an error of the MySQL protocol.
type Error struct {
	Code    uint16
	State   string
	Message string
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("Error %d (%s): %s", e.Code, e.State, e.Message)
}

func sqlError(code uint16, state, format string, args ...any) error {
	return &Error{Code: code, State: state, Message: fmt.Sprintf(format, args...)}
}

// syntaxError is what the parser says about a statement that StarRocks' grammar does not take either.
func syntaxError(sql string, pos int, format string, args ...any) error {
	line, col := 1, 0
	for i := 0; i < pos && i < len(sql); i++ {
		col++
		if sql[i] == '\n' {
			line, col = line+1, 0
		}
	}
	return sqlError(1064, "42000", "Getting syntax error at line %d, column %d. Detail message: %s.", line, col, fmt.Sprintf(format, args...))
}

// unsupported marks what StarRocks may know and the stand-in does not.
func unsupported(format string, args ...any) error {
	return sqlError(1064, "42000", "unsupported by the stand-in: %s", fmt.Sprintf(format, args...))
}

// analysisError is an error of the analyzer, which wraps its message.
func analysisError(format string, args ...any) error {
	return sqlError(1064, "HY000", "Getting analyzing error. Detail message: %s.", fmt.Sprintf(format, args...))
}

// ddlError is an error of the executors behind DDL, which comes bare.
func ddlError(format string, args ...any) error {
	return sqlError(1064, "HY000", format, args...)
}

func (s *store) unknownDatabase(name string) error {
	if s.ver.atLeast(3, 3, 0) {
		return sqlError(5501, "3F000", "Getting analyzing error. Detail message: Unknown database '%s'.", name)
	}
	return sqlError(1049, "42000", "Unknown database '%s'", name)
}

func (s *store) unknownTable(db, name string) error {
	if s.ver.atLeast(3, 3, 0) {
		return sqlError(5502, "42602", "Getting analyzing error. Detail message: Unknown table '%s.%s'.", db, name)
	}
	return analysisError("Unknown table '%s.%s'", db, name)
}
