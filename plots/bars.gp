# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# bars.gp - a table of "make bench" as bars, one a row: what an operation costs, or what it is made of.
# gnuplot -e "csv='output/bench/drop.csv'; out='drop.png'; names='how sockets'; parts='ns_each'; title='...'; unit='...'" plots/bars.gp
# Columns go by their names, in quotes where a space is in one. names: of that which says what a bar is, and if need be of a
# number behind it. parts: of those whose values it is made of, end to end. some: only rows where that one is above zero.
if (!exists("caption")) caption = ""
if (!exists("some")) some = ""
if (!exists("term")) term = "pngcairo"

# With tabs between fields, as gnuplot ends a string in quotes at its first comma.
rows = sprintf("< tr -d '\\r' < '%s' | awk -F'\"' '{ for (i = 1; i <= NF; i += 2) gsub(/,/, \"\\t\", $i); print }' OFS= | awk -F'\\t' -v some='%s' 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; print; next } some == \"\" || at[some] && $at[some] > 0'", \
	csv, some)
set datafile separator tab
set datafile columnheaders
up_to(i) = i == 0 ? 0 : (sum [k=1:i] column(word(parts, k)))
name(n) = words(names) == 1 ? strcol(word(names, 1)) : strcol(word(names, 1)).", ".threes(column(word(names, 2)))
# Digits in threes, as the tables have them.
threes(x) = x < 1000 ? sprintf("%d", x) : threes(floor(x / 1000)).sprintf(",%03d", int(x) % 1000)

longest = 0
if (system(substr(rows, 3, strlen(rows))." | wc -l") < 2) { exit error csv.": no row to draw" }
stats rows using (longest = strlen(name(0)) > longest ? strlen(name(0)) : longest, up_to(words(parts))) nooutput
height = 170 + 34 * STATS_records
set terminal @term size 1300,height font "sans,11"
set output out
set title title font "sans,14" noenhanced
set xlabel unit noenhanced
set label 1 caption noenhanced at screen 0.01, screen 30.0 / height font "sans,8" textcolor rgb "#666666"
set lmargin at screen (longest * 6.6 + 20) / 1300.0
set bmargin at screen 100.0 / height
set border 1
set tics nomirror
set format x "%.0f"
set ytics scale 0 noenhanced font "sans,10"
set grid x back lc rgb "#dddddd"
set style fill solid 0.9 noborder
set yrange [-STATS_records + 0.4:0.6]
set xrange [0:STATS_max > 0 ? STATS_max * 1.1 : 1]
if (words(parts) == 1) { unset key } else { set key outside right center vertical samplen 1 noenhanced }
colours = "#0072b2 #56b4e9 #009e73 #e69f00 #d55e00"
plot for [i=1:words(parts)] rows using (up_to(i)):(-$0):(up_to(i - 1)):(up_to(i)):(-$0 - 0.36):(-$0 + 0.36):ytic(name(0)) \
	with boxxyerror lc rgb word(colours, i) title word(parts, i), \
	rows using (up_to(words(parts))):(-$0):(threes(up_to(words(parts)))) with labels left offset 0.6,0 notitle
