package oracle_test

import (
	"slices"
	"testing"

	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// TestTypesOfExtensionsArriveAsTheyPrint covers extensions that PostgreSQL does not come with, where there is one of
// them. The oracle has them too; here it shows which were there.
func TestTypesOfExtensionsArriveAsTheyPrint(t *testing.T) {
	packaged, err := pgtest.DefaultMajor() // Of Debian's packages, if there are any.
	if err != nil {
		t.Fatal(err)
	}
	list := append(majors(t), packaged)
	slices.Sort(list)
	list = slices.Compact(list)
	for _, extension := range []string{"postgis", "vector"} {
		t.Run(extension, func(t *testing.T) {
			tested := false
			for _, major := range list {
				has := available(t, servers.of(t, major).Database(t))
				if !has[extension] {
					continue
				}
				tested = true
				onMajor(t, major, func(t *testing.T, major int, db *pgtest.DB) { extensionArrives(t, major, db, extension) })
			}
			if !tested {
				// skip: the extension is a package of its own, such as postgresql-15-postgis-3 of Debian.
				t.Skipf("no server has the extension %s", extension)
			}
		})
	}
}

// extensionArrives writes many values of each type of an extension, plain, in arrays and as keys.
func extensionArrives(t *testing.T, major int, db *pgtest.DB, extension string) {
	t.Helper()
	r := seeded(t, major)
	kinds, _ := kindsOf(major, available(t, db))
	kinds = slices.DeleteFunc(kinds, func(k *kind) bool { return k.needs != extension })
	hostile(db)
	o := &oracle{rig: newRig(t, db.URL(), pick(r, starrocks.DeleteSoft, starrocks.DeleteHard)), r: r}
	o.tables = tableSet(kinds, 100, r)
	o.setUp("CREATE EXTENSION " + extension)
	const rounds = 3
	for range rounds {
		o.round(rowsMax / 2)
	}
	t.Logf("%d values of %d types, %d rows refused as documented", o.values, len(kinds), o.refused)
}
