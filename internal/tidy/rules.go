package tidy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	fileLinesMax     = 500
	functionLinesMax = 70
)

var drawerNames = []string{"common", "helper", "helpers", "misc", "models", "shared", "types", "util", "utils"}

// The parts are joined here so that this file does not break the rule itself.
var (
	registryHost = regexp.MustCompile(`(?i)\b(` + strings.Join([]string{
		`proxy\.` + `golang\.org`, `sum\.` + `golang\.org`, `registry\.` + `npmjs\.org`, `registry\.` + `yarnpkg\.com`,
		`deb\.` + `debian\.org`, `security\.` + `debian\.org`, `pypi\.` + `org`, `files\.` + `pythonhosted\.org`,
	}, "|") + `)\b`)
	machinePath = regexp.MustCompile(`(^|[^\w.:/-])/(` + strings.Join([]string{"wo" + "rk", "ro" + "ot", "ho" + "me", "t" + "mp", "Us" + "ers"}, "|") + `)/[\w.]`)
	todo        = regexp.MustCompile(`(^|[^.\w])(TO` + `DO|FIX` + `ME|XX` + `X)[:(]`)
	issueLink   = regexp.MustCompile(`https://\S+/issues/\d+|\(#\d+\)`)
	generated   = regexp.MustCompile(`^// Code generated .* DO NOT EDIT\.$`)
	failedTo    = regexp.MustCompile(`(?i)^"failed to `)
	skipReason  = regexp.MustCompile(`// skip: \S`)
)

// checkText applies the rules for every kind of file.
func checkText(name string, text []byte) []string {
	var found []string
	for i, line := range strings.Split(string(text), "\n") {
		if host := registryHost.FindString(line); host != "" {
			found = append(found, fmt.Sprintf("%s:%d: names the registry %s; use the ordinary client's own setting", name, i+1, host))
		}
		if match := machinePath.FindString(line); match != "" {
			found = append(found, fmt.Sprintf("%s:%d: names a path of one machine (%s...)", name, i+1, strings.TrimSpace(match)))
		}
		if todo.MatchString(line) && !issueLink.MatchString(line) {
			found = append(found, fmt.Sprintf("%s:%d: an open task needs a link to its issue", name, i+1))
		}
	}
	return found
}

// checkGo applies the rules for one Go file and returns its syntax for the rules about packages.
func checkGo(name string, text []byte) (*ast.File, []string) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, text, parser.ParseComments)
	if err != nil {
		return nil, []string{err.Error()}
	}
	if isGenerated(file) {
		return file, nil
	}
	source := goSource{name: name, files: files, file: file, lines: strings.Split(string(text), "\n")}
	var found []string
	if lines := strings.Count(string(text), "\n"); lines > fileLinesMax {
		found = append(found, fmt.Sprintf("%s: %d lines, at most %d: split it by noun", name, lines, fileLinesMax))
	}
	if base := strings.TrimSuffix(file.Name.Name, "_test"); slices.Contains(drawerNames, base) {
		found = append(found, fmt.Sprintf("%s: package name %s says nothing: name what is in it", name, base))
	}
	return file, append(found, source.check()...)
}

func isGenerated(file *ast.File) bool {
	for _, group := range file.Comments {
		for _, comment := range group.List {
			if comment.Pos() < file.Package && generated.MatchString(comment.Text) {
				return true
			}
		}
	}
	return false
}

// goSource is one parsed file with what the rules need to point into it.
type goSource struct {
	name  string
	files *token.FileSet
	file  *ast.File
	lines []string
}

func (s goSource) line(pos token.Pos) int { return s.files.Position(pos).Line }

func (s goSource) check() []string {
	var found []string
	ast.Inspect(s.file, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.FuncDecl:
			if lines := s.bodyLines(node); lines > functionLinesMax {
				found = append(found, fmt.Sprintf("%s:%d: function %s has %d lines, at most %d",
					s.name, s.line(node.Pos()), node.Name.Name, lines, functionLinesMax))
			}
		case *ast.CallExpr:
			found = append(found, s.checkCall(node)...)
		}
		return true
	})
	return found
}

// bodyLines counts the lines of a function's body that do not count as comment or as a table of cases.
func (s goSource) bodyLines(function *ast.FuncDecl) int {
	if function.Body == nil {
		return 0
	}
	first, last := s.line(function.Body.Lbrace)+1, s.line(function.Body.Rbrace)-1
	free := map[int]bool{}
	if strings.HasSuffix(s.name, "_test.go") {
		ast.Inspect(function.Body, func(node ast.Node) bool {
			if literal, ok := node.(*ast.CompositeLit); ok {
				for n := s.line(literal.Lbrace) + 1; n < s.line(literal.Rbrace); n++ {
					free[n] = true
				}
			}
			return true
		})
	}
	count := 0
	for n := first; n <= last; n++ {
		if !free[n] && !strings.HasPrefix(strings.TrimSpace(s.lines[n-1]), "//") {
			count++
		}
	}
	return count
}

func (s goSource) checkCall(call *ast.CallExpr) []string {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	receiver, ok := selector.X.(*ast.Ident)
	if !ok {
		return nil
	}
	at := s.line(call.Pos())
	switch receiver.Name + "." + selector.Sel.Name {
	case "fmt.Errorf", "errors.New":
		if literal, ok := firstLiteral(call); ok && failedTo.MatchString(literal) {
			return []string{fmt.Sprintf("%s:%d: an error says what was being done, without \"failed to\"", s.name, at)}
		}
	case "t.Skip", "t.Skipf", "t.SkipNow", "b.Skip", "b.Skipf", "b.SkipNow", "f.Skip", "tb.Skip", "tb.Skipf", "tb.SkipNow":
		if !skipReason.MatchString(s.lines[at-1]) && (at < 2 || !skipReason.MatchString(s.lines[at-2])) {
			return []string{fmt.Sprintf("%s:%d: a skipped test needs a comment \"// skip: reason\"", s.name, at)}
		}
	}
	return nil
}

func firstLiteral(call *ast.CallExpr) (string, bool) {
	if len(call.Args) == 0 {
		return "", false
	}
	literal, ok := call.Args[0].(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(literal.Value)
	return `"` + text, err == nil
}

// checkPackages applies the rule about package comments to all files of a tree, by name.
func checkPackages(files map[string]*ast.File) []string {
	comments := map[string]int{} // By folder.
	for name, file := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		dir := path.Dir(name)
		comments[dir] += 0
		if file.Doc != nil && !isBuildTag(file.Doc) {
			comments[dir]++
		}
	}
	var found []string
	for dir, count := range comments {
		if count != 1 {
			found = append(found, fmt.Sprintf("%s: %d package comments, want exactly one", dir, count))
		}
	}
	slices.Sort(found)
	return found
}

func isBuildTag(doc *ast.CommentGroup) bool { return doc.Text() == "" }
