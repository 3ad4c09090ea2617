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
cost(server) = sprintf("< awk -F, '$3 == \"%s\" { sub(\"a connection each\", \"one each\", $1); print $2 \"\\\\n\" $1 \",\" ($NF !~ /^\\r?$/ ? \"NaN\" : $5 / 1000) }' %s", \
	server, csv)
servers = "nginx;nginx deferred;user-http-server;khttpd fastpath=1;khttpd fastpath=0"
titles = "nginx;nginx, listen deferred;user-http-server (epoll, no parser);khttpd;khttpd, worker only"
colours = "#d55e00 #a04000 #e69f00 #0072b2 #56b4e9"
part(list, i) = system(sprintf("echo '%s' | cut -d';' -f%d", list, i))
# A bar's value stands on it: those of pipelined requests are too low to be read off.
plot for [i=1:5] cost(part(servers, i)) using 2:xtic(1) lc rgb word(colours, i) title part(titles, i), \
	for [i=1:5] cost(part(servers, i)) using ($0 + (i - 3) / 6.0):2:(sprintf("%.1f", $2)) with labels rotate by 90 left offset 0,0.4 font "sans,8" notitle
