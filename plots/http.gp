# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# http.gp - the HTTP table of "make bench" as bars: instructions a request, by server, kind of request
# and number of connections.
# gnuplot -e "csv='output/bench/http.csv'; out='http.png'" plots/http.gp
if (!exists("caption")) caption = ""
set label 1 caption noenhanced at screen 0.01, screen 0.035 font "sans,8" textcolor rgb "#666666"
set terminal pngcairo size 1100,620 font "sans,11"
set output out
set datafile separator ","
set title "Cost of an HTTP request (client, server and network stack together)" font "sans,14"
set ylabel "thousand instructions a request"
set xlabel "connections, and how they are used" offset 0,-1.2
set bmargin 7.5
set yrange [0:*]
set offsets 0, 0, graph 0.12, 0
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.9 border -1
set boxwidth 0.9
set grid y back lc rgb "#dddddd"
set border 3
set tics nomirror
set key outside top center horizontal samplen 1

# Rows of one server: connections and way as labels, its cost as the bar, none where it was refused.
cost(server) = sprintf("< tr -d '\\r' < '%s' | awk -F, 'NR == 1 { for (n = 1; n <= NF; n++) at[$n] = n; next } $at[\"server\"] == \"%s\" { way = $at[\"way\"]; sub(\"a connection each\", \"one each\", way); print $at[\"connections\"] \"\\\\n\" way \",\" ($at[\"refused\"] == \"\" ? $at[\"ns_per_request\"] / 1000 : \"NaN\") }'", \
	csv, server)
servers = "nginx;nginx deferred;user-http-server;khttpd fastpath=1;khttpd fastpath=0"
titles = "nginx;nginx, listen deferred;user-http-server (epoll, no parser);khttpd;khttpd, worker only"
colours = "#d55e00 #a04000 #e69f00 #0072b2 #56b4e9"
part(list, i) = system(sprintf("echo '%s' | cut -d';' -f%d", list, i))
# Numbers of those that have a bar, which of n are as wide together as a row is but for its gap.
present = ""
do for [i=1:5] {
	if (system(substr(cost(part(servers, i)), 3, 9999)." | grep -vc NaN") > 0) { present = present.sprintf(" %d", i) }
}
n = words(present)
if (n == 0) { exit error csv.": no row to draw" }
# A bar's value stands on it: those of pipelined requests are too low to be read off.
plot for [k=1:n] cost(part(servers, int(word(present, k)))) using 2:xtic(1) lc rgb word(colours, int(word(present, k))) title part(titles, int(word(present, k))), \
	for [k=1:n] cost(part(servers, int(word(present, k)))) using ($0 + (k - (n + 1) / 2.0) / (n + 1)):2:(sprintf("%.1f", $2)) with labels rotate by 90 left offset 0,0.4 font "sans,8" notitle
